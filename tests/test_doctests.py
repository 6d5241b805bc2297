"""The examples in docstrings run, and packages export what they say."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("dmd2.diffusion", "dmd2.losses", "dmd2.metrics")
# What a newcomer reads first has an example.
SHOWN = {
    "dmd2.diffusion.conditioning": {"ClassLabels"},
    "dmd2.diffusion.denoiser": {"guided", "to_x0"},
    "dmd2.diffusion.preconditioning": {"EDM", "UnscaledDenoiser"},
    "dmd2.diffusion.sampling": {"FewStepSampler"},
    "dmd2.diffusion.schedules": {"NoiseSchedule", "Karras", "VP"},
    "dmd2.diffusion.solvers": {"DDIM", "Heun"},
    "dmd2.losses.functional": {"score_difference"},
    "dmd2.losses.objective": {"Objective"},
    "dmd2.metrics.suite": {"MetricSuite"},
    "dmd2.randomness": {"Draws", "generator", "seeded"},
}


def modules() -> list[str]:
    """All modules of the packages, and `randomness`."""
    found = ["dmd2.randomness"]
    for name in PACKAGES:
        path = importlib.import_module(name).__path__
        found += [f"{name}.{module.name}" for module in pkgutil.iter_modules(path)]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module)
    shown = {test.name.removeprefix(f"{name}.") for test in found if test.examples}
    assert SHOWN.get(name, set()) <= shown
    runner = doctest.DocTestRunner()
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_exports_every_public_class_of_its_modules(name: str) -> None:
    package = importlib.import_module(name)
    assert len(package.__all__) == len(set(package.__all__))
    for exported in package.__all__:
        getattr(package, exported)
    for module in pkgutil.iter_modules(package.__path__):
        full_name = f"{name}.{module.name}"
        for public, value in vars(importlib.import_module(full_name)).items():
            if isinstance(value, type) and value.__module__ == full_name and public[0] != "_":
                assert public in package.__all__, f"{name} does not export {public}"
