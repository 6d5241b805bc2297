"""LoRA: at first the base itself, then its weights plus a product, and nothing else that is trained
or saved.
"""

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from dmd2.cli.main import main
from dmd2.config.folder import config_folder
from dmd2.diffusion.preconditioning import UnscaledDenoiser
from dmd2.diffusion.schedules import VP
from dmd2.io.tensors import load_weights, names_in, save_tensors
from dmd2.nets.lora import adapted, base_of, layers, merged, products
from dmd2.nets.toy import MLP
from dmd2.runs.build import build
from dmd2.runs.weights import load_denoiser
from dmd2.training.ema import EMA

pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

VP_TABLE = {"beta_start": 0.00085, "beta_end": 0.012}


def base() -> UnscaledDenoiser:
    torch.manual_seed(0)
    return (
        UnscaledDenoiser(MLP(2, 16, 2, 2), VP.scaled_linear(**VP_TABLE), "eps")
        .requires_grad_(False)
        .eval()
    )


def linear_layers(denoiser: UnscaledDenoiser) -> list[str]:
    return [name for name, layer in denoiser.model.named_modules() if isinstance(layer, nn.Linear)]


def on(denoiser: UnscaledDenoiser) -> UnscaledDenoiser:
    torch.manual_seed(1)
    return adapted(denoiser, 4, 8, linear_layers(denoiser))


def moved(denoiser: UnscaledDenoiser) -> UnscaledDenoiser:
    """The same as training would leave it."""
    with torch.no_grad():
        for weight in denoiser.parameters():
            if weight.requires_grad:
                weight.add_(
                    0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
                )
    return denoiser


def inputs() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return (
        torch.randn(6, 2, generator=draw),
        torch.linspace(0.1, 1, 6),
        {"label": torch.eye(2).repeat(3, 1)},
    )


def test_it_begins_as_its_base_and_holds_its_weights():
    teacher = base()
    student = on(teacher)
    assert torch.equal(student(*inputs()), teacher(*inputs()))
    held = {weight.data_ptr() for weight in student.parameters() if not weight.requires_grad}
    assert held == {weight.data_ptr() for weight in teacher.parameters()}
    trained = [name for name, weight in student.named_parameters() if weight.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_moved_it_is_its_base_with_the_product_added():
    teacher = base()
    student, whole = moved(on(teacher)), base()
    whole.model.load_state_dict(merged(student.model))
    assert not torch.allclose(student(*inputs()), teacher(*inputs()), atol=0.1)
    torch.testing.assert_close(whole(*inputs()), student(*inputs()), rtol=1e-4, atol=1e-4)
    assert torch.equal(teacher(*inputs()), base()(*inputs()))


def test_what_it_was_made_on_is_there_without_it():
    teacher = base()
    student = moved(on(teacher))
    before, found = student(*inputs()), base_of(student)
    assert torch.equal(found(*inputs()), teacher(*inputs())) and not list(layers(found.model))
    assert {x.data_ptr() for x in found.parameters()} == {
        x.data_ptr() for x in teacher.parameters()
    }
    assert torch.equal(student(*inputs()), before) and list(layers(student.model))


def test_only_its_own_weights_are_saved_and_they_are_enough(tmp_path: Path):
    student, other = moved(on(base())), on(base())
    save_tensors(nn.ModuleDict({"a": student}).state_dict(), tmp_path / "lora.safetensors")
    assert all(".lora_" in name for name in names_in(tmp_path / "lora.safetensors"))
    load_weights(nn.ModuleDict({"a": other}), tmp_path / "lora.safetensors")
    assert torch.equal(other(*inputs()), student(*inputs()))
    save_tensors(student.state_dict(), tmp_path / "named_otherwise.safetensors")
    with pytest.raises(ValueError, match="another network's weights"):
        load_weights(nn.ModuleDict({"a": other}), tmp_path / "named_otherwise.safetensors")


def test_averages_are_of_its_own_weights_on_the_same_base():
    student = on(base())
    ema = EMA(student, [0.9])
    ema.init_from(student)
    (before,) = ema.named().values()
    start = {name: weight.clone() for name, weight in before.state_dict().items()}
    ema.update(moved(student))
    for name, weight in ema.models[0].state_dict().items():
        torch.testing.assert_close(weight, start[name].lerp(student.state_dict()[name], 0.1))
    shared = {w.data_ptr() for w in student.parameters()} & {w.data_ptr() for w in ema.parameters()}
    assert len(shared) == len(list(base().parameters()))


@pytest.mark.parametrize("targets", [["nothing"], []])
def test_a_target_that_is_not_there_is_named(targets: list[str]):
    with pytest.raises(
        ValueError, match=r"no layer called 'nothing'; this network has|layers, got 4 and \[\]"
    ):
        adapted(base(), 4, 8, targets)


def test_without_peft_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ImportError, match=r"make install EXTRAS=dev,text, or pip install '\.\[text"
    ):
        on(base())


def test_it_is_named_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    monkeypatch.setattr(sys, "argv", ["dmd2", "train", "lora=generator"])
    with pytest.raises(SystemExit):
        main()
    assert "type lora.generator.targets=[LAYER,...]; this network has" in capsys.readouterr().err
    assert not list((tmp_path / "cache").glob("teachers/*.safetensors"))


def test_the_published_one_for_sdxl_has_the_published_size():
    """787 MB in float32."""
    pytest.importorskip(
        "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
    )
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=["teacher=sdxl", "data=text_digits", "lora=generator"])
    node = {**config.teacher.denoiser, "schedule": {"_target_": "torch.nn.Identity"}}
    with torch.device("meta"):
        student = build(config.lora.generator)(build(node).requires_grad_(False))
    assert (
        sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
        == 196_751_360
    )
    assert sum(weight.numel() for weight in student.state_dict().values()) == 196_751_360


@pytest.mark.parametrize("prefix", ["", "unet.", "transformer.", "base_model.model."])
def test_an_exported_one_is_read_again_and_another_is_named(prefix: str, tmp_path: Path):
    trained, path = moved(on(base())), tmp_path / "lora.safetensors"
    factors = {f"{prefix}{name}": x.detach() for name, x in products(trained.model).items()}
    save_tensors(factors, path)
    fresh = on(base())
    load_denoiser(fresh, path)
    x, t, cond = inputs()
    torch.testing.assert_close(fresh(x, t, cond), trained(x, t, cond))
    with pytest.raises(ValueError, match="is a LoRA, and this network has none"):
        load_denoiser(base(), path)
    with pytest.raises(ValueError, match=r"other layers or another rank: of .* \(4, .*\(2, "):
        load_denoiser(adapted(base(), 2, 8, linear_layers(base())), path)
    with pytest.raises(ValueError, match=r"other layers or another rank: of .* none"):
        load_denoiser(adapted(base(), 4, 8, linear_layers(base())[:1]), path)


@pytest.mark.parametrize(
    "names, words",
    [
        (["lora_unet_mid_to_q.lora_down.weight", "lora_unet_mid_to_q.alpha"], "kohya"),
        (["model.diffusion_model.x", "first_stage_model.x"], "whole model in one file"),
        (["something.weight"], "another network"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(names, words: str, tmp_path: Path):
    save_tensors({name: torch.zeros(2) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=words) as error:
        load_denoiser(base(), tmp_path / "x.safetensors")
    assert len(str(error.value)) < 400
