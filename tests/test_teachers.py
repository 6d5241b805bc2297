"""The published teachers: their configurations build the networks that the files are of, and say
how to get them.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from dmd2.cli.errors import one_line
from dmd2.cli.main import main
from dmd2.config.check import Config, resolved
from dmd2.config.folder import config_folder
from dmd2.diffusion.guidance import Guidance
from dmd2.nets.discriminator import ConvHead
from dmd2.runs.build import build, build_data, build_guidance
from dmd2.runs.load import load_student
from dmd2.runs.teacher import Teacher, build_teacher, teacher_file, weights_key

PUBLISHED = {
    "edm_cifar10_cond_vp": ("edm-cifar10-32x32-cond-vp", 55_735_299),
    "edm_cifar10_cond_ve": ("edm-cifar10-32x32-cond-ve", 56_400_643),
    "edm_cifar10_uncond_vp": ("edm-cifar10-32x32-uncond-vp", 55_733_891),
    "edm_cifar10_uncond_ve": ("edm-cifar10-32x32-uncond-ve", 56_397_827),
    "edm_ffhq64_uncond_vp": ("edm-ffhq-64x64-uncond-vp", 61_805_571),
    "edm_ffhq64_uncond_ve": ("edm-ffhq-64x64-uncond-ve", 62_761_091),
    "edm_afhqv2_64_uncond_vp": ("edm-afhqv2-64x64-uncond-vp", 61_805_571),
    "edm_afhqv2_64_uncond_ve": ("edm-afhqv2-64x64-uncond-ve", 62_761_091),
    "edm_imagenet64_cond_adm": ("edm-imagenet-64x64-cond-adm", 295_899_267),
}
"""Names of the files, and parameters: ImageNet's are the published 295.9M, the others what our
networks come to.
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setattr(sys, "argv", sys.argv)
    return tmp_path


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolved(compose("train", overrides=list(overrides)))


def test_guidance_may_be_a_node_which_the_loss_reads_too() -> None:
    node = "{_target_:dmd2.diffusion.Guidance,scale:2.0,high:0.8}"
    config = composed("experiment=digits_dmd2", f"teacher.guidance={node}")
    found = build_guidance(config["teacher"])
    assert found == Guidance(2.0, high=0.8)
    assert build(config["loss"]["generator"]["dm"]).guidance == found
    with pytest.raises(ValueError, match=r"teacher\.guidance\.hihg; did you mean .*\.high"):
        composed("experiment=digits_dmd2", f"teacher.guidance={node.replace('high', 'hihg')}")


def test_every_published_file_has_its_configuration() -> None:
    assert {path.stem for path in (config_folder() / "teacher").glob("edm_*.yaml")} == set(
        PUBLISHED
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_teacher_has_the_published_size_and_a_tap_at_the_end_of_its_encoder(name: str) -> None:
    stem, num_parameters = PUBLISHED[name]
    section = composed(f"teacher={name}")["teacher"]
    with torch.device("meta"):
        denoiser = build(section["denoiser"])
    assert sum(p.numel() for p in denoiser.parameters()) == num_parameters
    assert list(denoiser.taps) == denoiser.model.feature_layers[-1:]
    assert denoiser.model.label_dim == build(section["conditioner"]).num_classes
    assert section["url"] == f"https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/{stem}.pkl"
    assert section["weights"] == f"cache/teachers/{stem}.safetensors"


def test_the_parts_of_imagenet_s_teacher_have_the_published_sizes() -> None:
    section = composed("teacher=edm_imagenet64_cond_adm")["teacher"]
    with torch.device("meta"):
        model = build(section["denoiser"]).model
        features = model.encode(torch.zeros(2, 3, 64, 64), torch.zeros(2), torch.zeros(2, 1000))[-2]
        head = build(section["head"])(features.shape)
    assert isinstance(head, ConvHead) and features.shape == (2, 768, 8, 8)
    sizes = [
        sum(p.numel() for p in part.parameters()) for part in (model, model.enc, model.dec, head)
    ]
    assert sizes[:3] == pytest.approx([295.9e6, 90.3e6, 204.1e6], abs=0.05e6)
    assert sizes[3] == 18_879_745


def teacher_of(*overrides: str) -> Teacher:
    """The teacher of a config, on the digits."""
    config = composed(*overrides)
    return build_teacher(config, build_data(composed()["data"]), teacher_file(config))


def test_a_missing_teacher_is_answered_with_where_to_get_it_and_what_to_type() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        teacher_of("teacher=edm_cifar10_cond_vp")
    line = one_line(caught.value)
    assert line == (
        "there are no weights at cache/teachers/edm-cifar10-32x32-cond-vp.safetensors; "
        "download https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-cond-vp.pkl "
        "and type: "
        "dmd2 import source=edm-cifar10-32x32-cond-vp.pkl "
        "out=cache/teachers/edm-cifar10-32x32-cond-vp.safetensors"
    )


@pytest.mark.parametrize("name", ["digits_dmd2", "text2digits_dmd2", "text2digits_dit"])
def test_a_teacher_is_trained_once_whatever_memory_it_takes(name: str) -> None:
    configs = [composed(f"experiment={name}", f"memory={word}") for word in ("fast", "low")]
    assert configs[0]["teacher"]["denoiser"] != configs[1]["teacher"]["denoiser"]
    data = build_data(configs[0]["data"])
    data.setup()
    fast, low = (weights_key(config, data) for config in configs)
    assert fast == low


def test_a_teacher_that_is_neither_kept_nor_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"teacher\.weights=FILE"):
        teacher_of("teacher.pretrain=null")


def imported(**changed: object) -> Path:
    """Weights of the digits' network, as an import would have written them."""
    node = composed()["teacher"]["denoiser"]
    arguments = {key: value for key, value in node["model"].items() if key != "_target_"}
    architecture = {"class": "EDMPrecond", "arguments": {"sigma_data": 0.75}}
    architecture["model"] = {"class": "DhariwalUNet", "arguments": arguments | changed}
    path = Path("imported.safetensors")
    save_file(build(node).state_dict(), path, {"architecture": json.dumps(architecture)})
    return path


def test_a_teacher_that_says_it_is_of_another_network_is_refused() -> None:
    path, _data = imported(dropout=0.5), build_data(composed()["data"])
    with pytest.raises(
        ValueError, match=r"dropout=0\.5.*type teacher\.denoiser\.model\.dropout=0\.5"
    ):
        teacher_of(f"teacher.weights={path}")
    imported()
    teacher_of(f"teacher.weights={path}")


def test_an_imported_student_is_scored_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    path, run = imported(), Path("students/digits")
    run.mkdir(parents=True)
    sys.argv = ["dmd2", "train", "--cfg", "job", "--resolve", "metric.num_samples=20"]
    main()
    (run / "config.yaml").write_text(capsys.readouterr().out)
    sys.argv = ["dmd2", "evaluate", f"run={run}", f"weights={path}"]
    main()
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["weights"] == str(path) and scores["metrics"]["rfd"] > 0
    assert "not trained here" in capsys.readouterr().out
    imported(num_blocks=3)
    with pytest.raises(ValueError, match="num_blocks=3"):
        load_student(run).read(str(path))
