"""A model in one file is the very teacher that its folder is."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.runs.build import build, build_data
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.teacher import build_teacher, teacher_file
from families import save_family
from originals import save_single_file
from pipelines import save_pipeline

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[text]'")

GIVEN = [
    "experiment=sd15_dmd2",
    "metric=none",
    "data.captions.source=captions.txt",
    "global_batch=2",
    "trainer=cpu",
    "max_iterations=2",
    "log_every=1",
    "callbacks.samples.every=2",
    "teacher=pipeline",
    "++teacher.head.num_groups=4",
]


@pytest.fixture(autouse=True)
def folder(captioned: Path) -> Path:
    """A directory with ten captions."""
    return captioned


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def teacher(*overrides: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = with_pipeline(resolved(compose("train", overrides=[*GIVEN, *overrides])))
    found = build_teacher(config, build_data(config["data"]), teacher_file(config))
    found.load_or_train()
    return found, build(config["teacher"]["autoencoder"])


def save(kind: str, folder: Path) -> Path:
    if kind in ("sd15", "sdxl"):
        return save_pipeline(folder / kind, kind)
    return save_family(folder / kind, kind)


PARTS = {"sd15": ("vae", "text"), "sdxl": ("vae",), "sd3": ()}


@pytest.mark.parametrize("kind", PARTS)
def test_it_is_the_teacher_of_the_folder(kind: str, folder: Path):
    whole = save(kind, folder)
    save_single_file(whole, folder / "model.safetensors", PARTS[kind])
    # What the file has is not in the pipeline that lends it the rest.
    lends = Path(shutil.copytree(whole, folder / "lends"))
    names = {"vae": "vae", "text": "text_encoder"}
    for part in ["transformer" if kind == "sd3" else "unet", *(names[x] for x in PARTS[kind])]:
        for weights in (lends / part).glob("*.safetensors"):
            weights.unlink()
    (theirs, their_vae), (ours, our_vae) = (
        teacher(f"teacher.source={whole}"),
        teacher("teacher.source=model.safetensors", "teacher.configs=lends"),
    )
    for first, second in (
        (theirs.denoiser, ours.denoiser),
        (theirs.conditioner, ours.conditioner),
        (their_vae.network, our_vae.network),
    ):
        expected, found = first.state_dict(), second.state_dict()
        assert expected.keys() == found.keys() and len(found) > 10
        assert all(torch.equal(x, found[name]) for name, x in expected.items())
    assert len(list(Path("cache/pipelines").glob("*/model_index.json"))) == 1


def test_it_is_converted_once_and_trains_samples_and_exports(folder: Path, capsys):
    whole = save_pipeline(folder / "sd15")
    save_single_file(whole, folder / "model.safetensors")
    asked = ["teacher.source=model.safetensors", "teacher.configs=sd15"]
    dmd2("train", "--check", *GIVEN, *asked)
    assert "the teacher model.safetensors" in capsys.readouterr().out
    assert not Path("cache").exists()
    dmd2("train", *GIVEN, *asked)
    (made,) = Path("cache/pipelines").glob("*/model_index.json")
    before = made.stat().st_mtime_ns
    run = "runs/sd15_dmd2/now"
    dmd2("train", *GIVEN, *asked, f"paths.run={run}", "resume=auto")
    dmd2("sample", f"run={run}", "num_images=2", "out=samples")
    dmd2("export", f"run={run}", "out=exported")
    assert made.stat().st_mtime_ns == before
    assert not list(Path("cache/pipelines").glob("*.partial"))
    assert "from model.safetensors" in Path("exported/README.md").read_text()
    assert json.loads(Path("exported/model_index.json").read_text())["unet"][0] == "diffusers"


def test_a_file_of_another_kind_is_said_in_a_line(folder: Path):
    save_family(folder / "sd3", "sd3")
    sd15 = save_pipeline(folder / "sd15")
    file = save_single_file(sd15, folder / "model.safetensors")
    network = save_single_file(sd15, folder / "network.safetensors", ())
    asked = ["teacher.source=model.safetensors"]
    mistakes = {
        ("teacher.configs=sd3",): r"looks like a UNet2DConditionModel, and .*sd3 is of a SD3Trans",
        (): r"is one file, without configs .*teacher\.configs=DIR",
        ("teacher.configs=none",): "there is no pipeline at none",
    }
    for more, words in mistakes.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            teacher(*asked, *more)
    tensors = read_tensors(network)
    wrong = {
        "width": {
            n: x[:, :8] if n.endswith("attn2.to_k.weight") else x for n, x in tensors.items()
        },
        "lacks": {n: x for n, x in tensors.items() if "middle_block.0.in_layers.2" not in n},
        "more": tensors | {f"{list(tensors)[-1]}": torch.zeros(3)},
        "coarse": {n: x.to(torch.float8_e4m3fn) for n, x in tensors.items()},
        "unknown": {"a.weight": torch.zeros(2)},
        "diffusers": read_tensors(sd15 / "unet/diffusion_pytorch_model.safetensors"),
    }
    words = {
        "width": "reads text of width 8, and that of sd15 reads 16",
        "lacks": r"the unet in .* has other sizes .*mid_block\.resnets\.0\.conv1.* none",
        "more": r"the unet in .* has other sizes",
        "coarse": "is stored in float8_e4m3fn",
        "unknown": "its first name is 'a.weight'",
        "diffusers": "a network in diffusers' names is teacher.weights=FILE",
    }
    for name, content in wrong.items():
        own = {n: x.contiguous().clone() for n, x in content.items()}
        save_tensors(own, folder / f"{name}.safetensors")
        with pytest.raises(ValueError, match=words[name]) as error:
            teacher(f"teacher.source={name}.safetensors", "teacher.configs=sd15")
        assert "\n" not in str(error.value) and len(str(error.value)) < 700
    wordless = Path(shutil.copytree(sd15, folder / "wordless"))
    for path in (wordless / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer at wordless/tokenizer: it has no vocab"):
        teacher(*asked, "teacher.configs=wordless")
    file.rename(folder / "model.ckpt")
    with pytest.raises(ValueError, match=r"nothing in it was run: it is a pickle.*dmd2 import"):
        teacher("teacher.source=model.ckpt", "teacher.configs=sd15")
    with pytest.raises(FileNotFoundError, match=r"there is no file gone\.safetensors"):
        teacher("teacher.source=gone.safetensors", "teacher.configs=sd15")
    with pytest.raises(ValueError, match=r"is for a model in one file.*teacher\.configs=null"):
        teacher("teacher.source=sd15", "teacher.configs=sd15")
    assert not list(Path("cache").glob("pipelines/*/model_index.json"))
