"""A teacher with LoRAs of others: trained on, resumed, sampled, exported; what does not fit is said
before training.
"""

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from dmd2.cli.main import main
from dmd2.config.check import resolved
from dmd2.config.folder import config_folder
from dmd2.io.tensors import read_tensors, save_tensors
from dmd2.runs.build import build_data
from dmd2.runs.load import load
from dmd2.runs.teacher import build_teacher, teacher_file
from families import save_family
from pipelines import save_pipeline

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

GIVEN = [
    "experiment=sd15_dmd2",
    "metric=none",
    "data.captions.source=captions.txt",
    "global_batch=2",
    "trainer=cpu",
    "max_iterations=2",
    "log_every=1",
    "callbacks.samples.every=2",
    "checkpoint.every=1",
    "teacher=pipeline",
    "teacher.source=own",
    "++teacher.head.num_groups=4",
]
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "text_model.encoder.layers.1.self_attn.q_proj"


@pytest.fixture(autouse=True)
def folder(captioned: Path) -> Path:
    """A directory with ten captions, and a pipeline."""
    save_pipeline(captioned / "own")
    return captioned


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def save_lora(path: Path, seed: int = 0, **layers: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Random factors of rank 2, of a layer of the U-Net and one of the text encoder."""
    torch.manual_seed(seed)
    sizes = layers or {f"unet.{LAYER}": (16, 16), f"text_encoder.{TEXT}": (16, 16)}
    factors = {}
    for name, (a, b) in sizes.items():
        factors[f"{name}.lora_A.weight"] = torch.randn(2, a)
        factors[f"{name}.lora_B.weight"] = torch.randn(b, 2)
    save_tensors(factors, path)
    return factors


def teacher(*overrides: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = resolved(compose("train", overrides=[*GIVEN, *overrides]))
    return build_teacher(config, build_data(config["data"]), teacher_file(config))


def loaded(*overrides: str):
    found = teacher(*overrides)
    found.load_or_train()
    return found


def test_weights_key_and_hash_have_the_loras(folder: Path):
    factors = save_lora(folder / "a.safetensors")
    plain, own, half, other = (
        loaded(f"teacher.loras=[{nodes}]")
        for nodes in (
            "",
            "{source:a.safetensors}",
            "{source:a.safetensors,scale:0.5}",
            "{source:a.safetensors},{source:a.safetensors,scale:-0.5}",
        )
    )
    a, b = (factors[f"unet.{LAYER}.lora_{x}.weight"] for x in "AB")
    before = plain.denoiser.model.get_parameter(f"{LAYER}.weight")
    text = plain.conditioner.encoder.models[0].state_dict()
    ta, tb = (factors[f"text_encoder.{TEXT}.lora_{x}.weight"] for x in "AB")
    for found, scale in ((own, 1.0), (half, 0.5), (other, 0.5)):
        weight = found.denoiser.model.get_parameter(f"{LAYER}.weight")
        torch.testing.assert_close(weight, before + scale * b @ a, rtol=1e-6, atol=1e-6)
        now = found.conditioner.encoder.models[0].state_dict()
        changed = [name for name, x in now.items() if not torch.equal(x, text[name])]
        assert len(changed) == 1 and changed[0].endswith("layers.1.self_attn.q_proj.weight")
        torch.testing.assert_close(
            now[changed[0]], text[changed[0]] + scale * tb @ ta, rtol=1e-6, atol=1e-6
        )
    assert len({found.key for found in (plain, own, half, other)}) == 4
    assert len({found.sha256 for found in (plain, own, half, other)}) == 4
    first, _ = own.key, save_lora(folder / "a.safetensors", seed=1)
    changed_file = teacher("teacher.loras=[{source:a.safetensors}]")
    assert changed_file.key != first and changed_file.sha256 != own.sha256


@pytest.mark.parametrize("lora", ["none", "generator"])
def test_a_run_trains_resumes_samples_and_exports(lora: str, folder: Path, capsys):
    save_lora(folder / "a.safetensors")
    loras = "teacher.loras=[{source:a.safetensors,scale:0.5}]"
    # In bfloat16 the frozen weights would be rounded, and the comparison with them coarse.
    asked = [*GIVEN, f"lora={lora}", "teacher.dtype=null", loras]
    run = "runs/sd15_dmd2/now"
    dmd2("train", *asked)
    resumed = [f"paths.run={run}", "resume=auto"]
    dmd2("train", *asked, *resumed)
    dmd2("sample", f"run={run}", "num_images=2", "out=samples")
    dmd2("export", f"run={run}", "out=exported")
    text = Path("exported/README.md").read_text()
    assert "LoRAs merged into its weights" in text and "a.safetensors (scale 0.5)" in text
    student = load(run)
    own = student.conditioner.encoder.models[0].state_dict()
    stock = diffusers.DiffusionPipeline.from_pretrained("exported")
    exported = stock.text_encoder.state_dict()
    assert all(torch.equal(x, exported[name]) for name, x in own.items())
    if lora == "generator":
        # The card's own lines make the same network of the published pipeline.
        assert 'pipe.load_lora_weights("a.safetensors")' in text
        pipe = diffusers.DiffusionPipeline.from_pretrained("own")
        for name, scale in (("a.safetensors", 0.5), ("exported/lora", 1.0)):
            pipe.load_lora_weights(name)
            pipe.fuse_lora(lora_scale=scale)
            pipe.unload_lora_weights()
        for name, x in pipe.unet.state_dict().items():
            torch.testing.assert_close(stock.unet.state_dict()[name], x, rtol=1e-5, atol=1e-5)
    capsys.readouterr()
    save_lora(folder / "a.safetensors", seed=1)
    with pytest.raises(SystemExit):
        dmd2("train", *asked, *resumed)
    assert "this checkpoint is of another run: teacher was" in capsys.readouterr().err
    if lora == "generator":
        with pytest.raises(SystemExit):
            dmd2("sample", f"run={run}", "num_images=2", "out=again")
        assert "is not the teacher that the LoRA of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        dmd2("train", *asked[:-1], "teacher.loras=[]", *resumed)
    assert "teacher.loras was" in capsys.readouterr().err


def test_transformers_have_them_too(folder: Path):
    save_family(folder / "sd3", "sd3")
    name = "transformer_blocks.0.attn.to_q"
    factors = save_lora(folder / "b.safetensors", **{f"transformer.{name}": (32, 32)})
    asked = ["teacher.source=sd3", "teacher.loras=[{source:b.safetensors}]"]
    found = loaded(*asked).denoiser.model.get_parameter(f"{name}.weight")
    before = read_tensors(folder / "sd3/transformer/diffusion_pytorch_model.safetensors")
    a, b = factors.values()
    torch.testing.assert_close(found, before[f"{name}.weight"] + b @ a, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "layers, words",
    [
        ({"transformer.transformer_blocks.0.attn.to_q": (32, 32)}, "a LoRA of another network"),
        ({f"unet.{LAYER}": (15, 16)}, "a LoRA of a network of other sizes"),
        ({"text_encoder_2.encoder.layers.0.self_attn.q_proj": (16, 16)}, "of text encoder 2"),
        ({"text_encoder.encoder.layers.9.self_attn.q_proj": (16, 16)}, "of another network"),
    ],
)
def test_what_does_not_fit_is_said_before_training(layers, words: str, folder: Path, capsys):
    save_lora(folder / "a.safetensors", **layers)
    with pytest.raises(SystemExit):
        dmd2("train", *GIVEN, "teacher.loras=[{source:a.safetensors}]")
    line = capsys.readouterr().err.splitlines()[-1]
    assert words in line and len(line) < 400
    assert not list(Path("runs").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "nodes, words",
    [
        ("{source:gone.safetensors}", "there is no LoRA at gone"),
        ("a.safetensors", "teacher.loras must be a list of LoRA files with scales"),
        ("{source:a.safetensors,weight:1}", "teacher.loras must be a list of LoRA files"),
    ],
)
def test_what_is_no_list_of_files_is_said(nodes: str, words: str, capsys):
    with pytest.raises(SystemExit):
        dmd2("train", *GIVEN, f"teacher.loras=[{nodes}]")
    assert words in capsys.readouterr().err.splitlines()[-1]
