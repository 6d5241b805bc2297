"""Every test runs on one CPU thread, so that it gives the same numbers on any machine of a kind."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# Many tests fork this process, which cannot train in the fork where it has used a GPU before.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# The same few examples everywhere; files of an example may lie in a test's own folder.
settings.register_profile(
    "here",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills", type=int, default=3, help="how often tests/test_soak.py kills (default 3)"
    )
    parser.addoption(
        "--verb", help="the one verb that tests/test_soak.py kills, e.g. train (default: each)"
    )


SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Tensors recorded from the reference implementations, in a folder beside the checkout; not
    everybody has it.
    """
    if not (SHARED / "reference").is_dir():
        pytest.skip("no recorded reference tensors in ../shared/reference")
    return SHARED / "reference"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small text-to-image run (`run`) and its export (`pipeline`)."""
    from verbs import train  # noqa: PLC0415  # it loads what only some tests need

    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def captioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ten captions, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    (tmp_path / "captions.txt").write_text("\n".join(f"a red dot {i}" for i in range(10)))
    return tmp_path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """From a family to the folder of its pipeline, saved when first asked for."""
    from families import save_family  # noqa: PLC0415  # it loads what only some tests need

    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).is_dir() else save_family(root / name, name)

    return folder
