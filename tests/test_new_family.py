"""A family that is added as docs/families.md says: the page's class, row and YAML and nothing else,
from detection over two iterations to an export.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dmd2.cli.main import main
from dmd2.diffusion import Flow
from dmd2.nets import VAE
from dmd2.nets.pipeline import from_configs, pipeline_guidance, pipeline_vae
from dmd2.nets.pipeline_families import FAMILIES, family_of
from dmd2.nets.pipeline_recipe import pipeline_lr
from dmd2.runs.export_sampling import arguments_of
from dmd2.runs.load import load_student
from families import SIZES, TRANSFORMERS, save_family

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)
pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

PAGE = (Path(__file__).parents[1] / "docs" / "families.md").read_text()
BLOCK = re.compile(r"^```(python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KIND = "LumenTransformer2DModel"
SMALL = [
    *("experiment=distil", "data.captions.source=captions.txt", "trainer=cpu"),
    *("max_iterations=2", "critic_updates=1", "global_batch=4", "accumulate=2", "log_every=1"),
    *("callbacks.samples=null", "optimizer.generator.lr=0.01", "optimizer.lr_factor.warmup=0"),
    *("teacher.dtype=null", "teacher.conditioner.encoder.dtype=float32", "teacher.source=pipeline"),
    f"teacher.autoencoder.resolution={SIZES['auraflow']}",
]


@pytest.fixture
def lumen(captioned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with captions, a pipeline of a class that no table has, and the page's files:
    `lumen.py` and conf/teacher/lumen.yaml.
    """
    # As if diffusers had the class.
    body = {"__module__": "diffusers.models.transformers.lumen"}
    network = type(KIND, (diffusers.AuraFlowTransformer2DModel,), body)
    monkeypatch.setattr(diffusers, KIND, network, raising=False)
    folder = save_family(captioned / "pipeline", "auraflow")
    for name in ("model_index.json", "transformer/config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("AuraFlowTransformer2DModel", KIND))
    blocks = BLOCK.findall(PAGE)
    (captioned / "lumen.py").write_text("\n".join(x for kind, x in blocks if kind == "python"))
    (described,) = (x for kind, x in blocks if kind == "yaml")
    (captioned / "conf" / "teacher").mkdir(parents=True)
    (captioned / "conf" / "teacher" / "lumen.yaml").write_text(described)
    monkeypatch.syspath_prepend(captioned)
    monkeypatch.setenv("DMD2_TRUSTED_PACKAGES", "lumen")
    with pytest.raises(ValueError, match=f"is a {KIND}, and known are SD3"):
        family_of(folder)
    importlib.import_module("lumen")
    yield captioned
    FAMILIES.pop(KIND, None)
    sys.modules.pop("lumen", None)


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


def test_the_page_s_class_row_and_yaml_make_a_family(lumen: Path):
    class_of = sys.modules["lumen"].Lumen
    found = from_configs("pipeline", [0.5], gradient_checkpointing=False)
    assert type(found) is class_of and type(found.model).__name__ == KIND
    assert isinstance(found.schedule, Flow) and found.prediction == "flow"
    assert (pipeline_guidance("pipeline"), pipeline_lr("pipeline", "critic")) == (3.5, 2e-5)
    assert type(pipeline_vae("pipeline")) is VAE

    dmd2("train", *SMALL, "paths.run=run")  # teacher=pipeline
    assert json.loads(Path("run/summary.json").read_text())["iterations"] == 2
    dmd2("export", "run=run", "out=out")
    assert Path("out/lora/pytorch_lora_weights.safetensors").is_file()
    pipe = diffusers.DiffusionPipeline.from_pretrained("out")
    assert type(pipe.transformer).__name__ == KIND
    pipe.set_progress_bar_config(disable=True)
    student = load_student(Path("run"))
    call = arguments_of(student.generator, student.sampler, SIZES["auraflow"], None)
    torch.manual_seed(0)
    image = pipe(prompt=["a red dot"], output_type="np", **call).images
    assert np.isfinite(image).all() and image.std() > 0


def test_its_yaml_says_what_its_files_say(lumen: Path):
    # The sizes of the small network and its VAE, in place of the released ones.
    model = {"patch_size": 2, **TRANSFORMERS["auraflow"][1]}
    small = [f"++teacher.denoiser.model.{key}={value}" for key, value in model.items()]
    small += ["++teacher.autoencoder.channels=4", "++teacher.autoencoder.factor=2"]
    dmd2("train", "--config-dir=conf", *SMALL, "teacher=lumen", *small, "paths.run=described")
    assert json.loads(Path("described/summary.json").read_text())["iterations"] == 2
