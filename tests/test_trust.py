"""A run's config is a program: what is not this program's own is called only when it is trusted."""

import os
from pathlib import Path

import pytest

import dmd2
from dmd2.config.check import config_folder
from dmd2.config.places import found_from_anywhere
from dmd2.config.trust import KNOWN, check_trusted, targets
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
        "numpy.load",
        "dmd2.runs.load.os.mkdir",
        "dmd2.io.files.shutil.rmtree",
        "dmd2.io.files.json.loads",
        "torch.optim.adamw.torch.serialization.os.mkdir",
        "torch.nn.modules.module.sys.exit",
        "dmd2",
        "dmd2x.Net",
        "my_package.Net",
    ],
)
def test_what_is_no_part_of_the_program_is_named_and_not_called(run: Path, target: str) -> None:
    (run / "config.yaml").write_text(HOSTILE.replace("TARGET", target))
    with pytest.raises(ValueError, match=rf"config.yaml calls {target}, .* type trust=true"):
        dmd2.load(run)
    assert not Path("ran").exists()
    assert config_of(run, trust=True)["teacher"]["denoiser"]["_target_"] == target


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_another_user_s_run_is_not_trusted_unasked(run: Path) -> None:
    (run / "config.yaml").write_text(HOSTILE.replace("TARGET", "dmd2.nets.UNet"))
    assert config_of(run, trust=False)
    os.chown(run / "config.yaml", 12345, -1)
    with pytest.raises(ValueError, match=r"another user \(number 12345\).* trust=true"):
        config_of(run, trust=False)
    assert config_of(run, trust=True)


def test_all_that_this_project_s_own_configs_call_is_known(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for path in config_folder().rglob("*.yaml"):
        if "hydra" not in path.parts:
            node = yaml.safe_load(path.read_text())
            assert all(target.startswith(KNOWN) for target in targets(node)), path
            check_trusted(path, node)


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
