"""A run's config is a program: what is not this program's own is called only when it is trusted."""

import inspect
import os
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
import yaml

import dmd2
from dmd2.config.check import config_folder
from dmd2.config.places import found_from_anywhere
from dmd2.config.trust import OTHER_VERBS, OWN, VARIABLE, is_known, targets
from dmd2.runs.load import config_of

HOSTILE = """
data: {batch_size: 1}
pairs: null
trainer: {devices: 1, num_nodes: 1, accelerator: cpu}
teacher:
  denoiser: {_target_: TARGET, args: [ran]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds a config only, below the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "subprocess.run",
        "builtins.exec",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Module.load_state_dict",
        "torch.nn.utils.clip_grad_norm_",
        "torch.nn.modules.module.sys.exit",
        "torch.optim.adamw.torch.serialization.os.mkdir",
        "diffusers.StableDiffusionPipeline.from_pretrained",
        "diffusers.utils.os.system",
        "lightning.pytorch.callbacks.LambdaCallback",
        "numpy.load",
        "dmd2",
        "dmd2.",
        ".dmd2.nets.UNet",
        "dmd2.nets.UNet.",
        "dmd2.nets.unet.UNet",
        "dmd2.io.files.discard",
        "dmd2.io.write_json",
        "dmd2.io.files.shutil.rmtree",
        "dmd2.io.files.json.loads",
        "dmd2.runs.load.os.mkdir",
        "dmd2.weights.read_checkpoint",
        "dmd2.data.PairWriter",
        "dmd2.data.DataModule.prepare_data",
        "dmd2.data.preparation.images",
        "dmd2.benchmarks.loader.loader",
        "dmd2.metrics.fetched",
        "dmd2x.Net",
        "my_package.Net",
        "hydra_plugins.dmd2_launcher.os.system",
        "${x}",
        "",
    ],
)
def test_what_no_config_is_meant_to_name_is_named_and_not_called(run: Path, target: str) -> None:
    (run / "config.yaml").write_text(HOSTILE.replace("TARGET", f"'{target}'"))
    with pytest.raises(ValueError) as refused:
        dmd2.load(run)
    said = str(refused.value)
    assert f"config.yaml calls {target}, " in said and "type trust=true" in said
    assert not Path("ran").exists()
    assert config_of(run, trust=True)["teacher"]["denoiser"]["_target_"] == target


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:{_target_: os.mkdir, path: ran}}",
        "${oc.decode:'{_target_: os.mkdir, path: ran}'}",
        "${${x}.create:{_target_: os.mkdir, path: ran}}",
        "a ${oc.env:HOME}",
        "${ oc.create\n:{}}",
    ],
)
@pytest.mark.parametrize("place", ["value", "key", "list"])
def test_nothing_computed_becomes_a_call(run: Path, text: str, place: str) -> None:
    config: dict[str, Any] = yaml.safe_load(HOSTILE.replace("TARGET", "dmd2.data.Toy2D"))
    config["data"] |= {"value": {"a": text}, "key": {text: 1}, "list": {"a": [[text]]}}[place]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"config.yaml (computes .*trust=true|is damaged)"):
        dmd2.load(run)
    assert not Path("ran").exists()


def test_of_this_program_only_exported_classes_and_what_yaml_names_are_known() -> None:
    exported = {f"{package}.{name}" for package in OWN for name in import_module(package).__all__}
    shipped = {
        target
        for path in config_folder().rglob("*.yaml")
        for target in targets(yaml.safe_load(path.read_text()))
    }
    names = list(walk_packages(dmd2.__path__, "dmd2."))
    num_refused = 0
    for module in (import_module(info.name) for info in names if "__main__" not in info.name):
        for name, value in vars(module).items():
            target = f"{module.__name__}.{name}"
            inner = (
                [f"{target}.{method}" for method in vars(value)] if inspect.isclass(value) else []
            )
            for address in (target, *inner):
                is_class = address == target and inspect.isclass(value)
                if address not in shipped and not (is_class and address in exported):
                    assert not is_known(address), address
                    num_refused += 1
    assert num_refused > 5000


@pytest.mark.parametrize("name", ["torch.nn", "torch.optim", "torch"])
def test_of_torch_no_function_and_no_module_is_known(name: str) -> None:
    for inner, value in vars(import_module(name)).items():
        is_class = inspect.isclass(value) and name != "torch"
        assert is_class or not is_known(f"{name}.{inner}"), inner


@pytest.mark.parametrize("target", ["torch.nn.SiLU", "torch.optim.SGD", "dmd2.losses.GANCritic"])
def test_classes_that_configs_are_made_of_are_known(target: str) -> None:
    assert is_known(target)


def test_a_user_s_own_packages_are_trusted_where_they_are_set(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("my_nets").mkdir()
    Path("my_nets/__init__.py").write_text("import os\nclass Net: ...\n")
    monkeypatch.syspath_prepend(Path.cwd())
    (run / "config.yaml").write_text(HOSTILE.replace("TARGET", "my_nets.Net"))
    with pytest.raises(ValueError, match=rf"for a package of your own set {VARIABLE}=my_nets"):
        config_of(run, trust=False)
    monkeypatch.setenv(VARIABLE, "other, my_nets")
    assert config_of(run, trust=False)
    for target in ("my_nets.os.mkdir", "my_nets_too.Net", "my_nets.Gone", "my_nets"):
        assert not is_known(target)
    # What a run's own config says of it changes nothing.
    monkeypatch.delenv(VARIABLE)
    (run / "config.yaml").write_text(
        HOSTILE.replace("TARGET", "my_nets.Net") + f"{VARIABLE}: my_nets\n"
    )
    with pytest.raises(ValueError, match=r"calls my_nets\.Net"):
        config_of(run, trust=False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_another_user_s_run_is_not_trusted_unasked(run: Path) -> None:
    (run / "config.yaml").write_text(HOSTILE.replace("TARGET", "dmd2.nets.UNet"))
    assert config_of(run, trust=False)
    os.chown(run / "config.yaml", 12345, -1)
    with pytest.raises(ValueError, match=r"another user \(number 12345\).* trust=true"):
        config_of(run, trust=False)
    assert config_of(run, trust=True)


def test_all_that_this_project_s_own_configs_call_is_known(tmp_path: Path) -> None:
    for path in config_folder().rglob("*.yaml"):
        if path.parent.name not in OTHER_VERBS:
            for target in targets(yaml.safe_load(path.read_text())):
                assert is_known(target), path


@pytest.mark.parametrize("text", ["", "[]", "12", "null", "{", "a: b", "\x00", "a: [" * 3000])
def test_a_damaged_config_is_one_error_that_names_it(run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml is damaged"):
        dmd2.load(run)


@pytest.mark.parametrize("place", ["run/latest", "run/2026-11-29"])
def test_a_directory_of_runs_names_the_one_in_it(run: Path, place: str) -> None:
    Path(place).mkdir()
    (Path(place) / "config.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match=rf"there is one at .*{place}"):
        dmd2.load(run)


def test_without_any_run_none_is_named(run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the directory that dmd2 train printed"):
        dmd2.load(run)


def test_relative_names_are_found_where_the_run_was_started(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "a.txt").write_text("a")
    config = {
        "data": {"source": "data", "captions": {"source": ["a.txt", "gone.txt"]}},
        "teacher": {"source": "somebody/model", "weights": None, "kind": "data"},
        "autoencoder": {"source": str(tmp_path / "data"), "resolution": 8},
    }
    found = found_from_anywhere(config, tmp_path)
    start = str(tmp_path)
    assert found["data"]["source"] == f"{start}/data"
    assert found["data"]["captions"]["source"] == [f"{start}/a.txt", "gone.txt"]
    assert found["teacher"] == config["teacher"]
    assert found["autoencoder"] == config["autoencoder"]
