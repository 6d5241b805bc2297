"""LoRA files of other trainers, in every style of names, are base plus products, as diffusers fuses
them.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dmd2.io.tensors import save_tensors
from dmd2.nets.lora_files import layer_names, merge, merge_texts, read_lora
from dmd2.nets.pipeline_families import original_names
from families import TRANSFORMERS, save_family
from pipelines import UNET, XL, save_pipeline

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[text]'"
)
pytest.importorskip("peft", reason="peft is not installed: make install EXTRAS=dev,text")

RANK, ALPHA = 2, 3.0
KINDS = ("sd15", "sdxl", "sd3", "flux")
TARGETS = {
    "sd15": r".*(to_q|to_out\.0|ff\.net\.0\.proj|proj_in|conv1|time_emb_proj|conv_in|downs.*conv)",
    "sdxl": r".*(attn\d\.to_[kv]|to_out\.0|ff\.net\.2|proj_out|conv2|conv_shortcut|downs.*conv)",
    "sd3": r".*(attn2?\.to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out|ff\.net\.2|norm1\.linear)",
    "flux": r".*(attn\.to_[qkv]|add_[qkv]_proj|to_out\.0|ff\.net\.0\.proj|proj_mlp|\d\.proj_out)",
}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind in ("sd15", "sdxl"):
        return diffusers.UNet2DConditionModel(**UNET | (XL if kind == "sdxl" else {}))
    name, arguments = TRANSFORMERS[kind]
    return getattr(diffusers, name)(**arguments)


def factors_of(layer_weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Random factors of one layer, whose rows are those of several."""
    first = layer_weights[0]
    b = torch.randn(sum(map(len, layer_weights)), RANK, *[1] * (first.ndim - 2))
    return torch.randn(RANK, *first.shape[1:]), b


def drawn(model: nn.Module, groups: list[list[str]]) -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    weights = dict(model.named_parameters())
    return {"+".join(g): factors_of([weights[f"{n}.weight"] for n in g]) for g in groups}


def targets(kind: str, model: nn.Module) -> list[list[str]]:
    names = {name for group in layer_names(model).values() for name in group}
    return [[name] for name in sorted(names) if re.fullmatch(TARGETS[kind], name)]


def expected(model: nn.Module, drawn: dict, scale: float) -> dict[str, Tensor]:
    """Base plus scale B A, computed apart."""
    state = {name: x.detach().clone() for name, x in model.state_dict().items()}
    for group, (a, b) in drawn.items():
        names = group.split("+")
        product = scale * torch.einsum("or,ri->oi", b.flatten(1), a.flatten(1))
        for name in names:
            weight = state[f"{name}.weight"]
            own, product = product[: len(weight)], product[len(weight) :]
            weight += own.reshape(weight.shape)
    return state


def written(style: str, kind: str, model: nn.Module, path: Path) -> tuple[dict, float]:
    """A file in a style of names; its factors, and alpha / rank."""
    prefix = "unet" if kind in ("sd15", "sdxl") else "transformer"
    groups = targets(kind, model)
    if style in ("original", "comfy"):
        by_name = {tuple(group): name for name, group in original_names(model)}
        wanted = {group[0] for group in groups}
        groups = [list(group) for group in by_name if set(group) & wanted]
        assert len(groups) > 5
    found, tensors = drawn(model, groups), {}
    downs = {
        "diffusers": (f"{prefix}.NAME.lora_A.weight", f"{prefix}.NAME.lora_B.weight"),
        "peft": ("base_model.model.NAME.lora_A.weight", "base_model.model.NAME.lora_B.weight"),
        "named": ("NAME.lora_A.default.weight", "NAME.lora_B.default.weight"),
        "old": (f"{prefix}.NAME.lora.down.weight", f"{prefix}.NAME.lora.up.weight"),
        "kohya": ("lora_unet_NAME.lora_down.weight", "lora_unet_NAME.lora_up.weight"),
        "original": ("lora_unet_NAME.lora_down.weight", "lora_unet_NAME.lora_up.weight"),
        "comfy": ("diffusion_model.NAME.lora_A.weight", "diffusion_model.NAME.lora_B.weight"),
    }[style]
    for group, (a, b) in found.items():
        name = by_name[tuple(group.split("+"))] if style in ("original", "comfy") else group
        if "lora_unet" in downs[0]:
            name = name.replace(".", "_")
            tensors[f"lora_unet_{name}.alpha"] = torch.tensor(ALPHA)
        for end, x in zip(downs, (a, b), strict=True):
            tensors[end.replace("NAME", name)] = x.clone()
    save_tensors(tensors, path)
    return found, ALPHA / RANK if "lora_unet" in downs[0] else 1.0


STYLES = ("diffusers", "peft", "named", "old", "kohya", "original", "comfy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_weights_are_base_plus_products(style: str, kind: str, tmp_path: Path):
    model, path = network(kind), tmp_path / "lora.safetensors"
    found, ratio = written(style, kind, model, path)
    wanted = expected(model, found, 0.7 * ratio)
    lora = read_lora(path)
    assert len(lora.network) == len(found) and not lora.texts
    merge(model, lora.network, 0.7, path)
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, wanted[name], rtol=0, atol=1e-6 * max(1, x.abs().max()))


def pipeline(kind: str, folder: Path):
    saved = save_pipeline(folder, kind) if kind in ("sd15", "sdxl") else save_family(folder, kind)
    return diffusers.DiffusionPipeline.from_pretrained(saved)


@pytest.mark.parametrize(
    "style, kind",
    [
        *(("diffusers", kind) for kind in KINDS),
        *(("old", kind) for kind in ("sd15", "sdxl", "sd3")),
        ("kohya", "sd15"),
        ("original", "sdxl"),
    ],
)
def test_stock_diffusers_fuses_the_same(style: str, kind: str, tmp_path: Path):
    stock = pipeline(kind, tmp_path / "pipe")
    part = "unet" if kind in ("sd15", "sdxl") else "transformer"
    model, path = getattr(pipeline(kind, tmp_path / "pipe"), part), tmp_path / "lora.safetensors"
    written(style, kind, model, path)
    stock.load_lora_weights(str(path))
    stock.fuse_lora(lora_scale=0.7)
    stock.unload_lora_weights()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    merge(model, read_lora(path).network, 0.7, path)
    changed = 0
    for name, x in getattr(stock, part).state_dict().items():
        theirs, ours = x, model.state_dict()[name]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * max(1, x.abs().max()))
        changed += not torch.equal(ours, before[name])
    assert changed > 5


def test_text_encoders_are_merged_as_stock_diffusers_does(tmp_path: Path):
    stock, own = (pipeline("sdxl", tmp_path / "pipe") for _ in range(2))
    tensors = {}
    torch.manual_seed(2)
    for te, width in (("te1", 16), ("te2", 16)):
        for layer in ("self_attn_q_proj", "self_attn_out_proj"):
            name = f"lora_{te}_text_model_encoder_layers_1_{layer}"
            tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, width)
            tensors[f"{name}.lora_up.weight"] = torch.randn(width, RANK)
            tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    path = tmp_path / "lora.safetensors"
    save_tensors(tensors, path)
    stock.load_lora_weights(str(path))
    stock.fuse_lora(lora_scale=0.7)
    stock.unload_lora_weights()
    models = [own.text_encoder, own.text_encoder_2]
    before = [{name: x.clone() for name, x in model.state_dict().items()} for model in models]
    merge_texts(models, read_lora(path), 0.7)
    for theirs, ours, old in zip(
        (stock.text_encoder, stock.text_encoder_2), models, before, strict=True
    ):
        state = ours.state_dict()
        for name, x in theirs.state_dict().items():
            torch.testing.assert_close(state[name], x, rtol=0, atol=1e-5)
        assert sum(not torch.equal(x, old[name]) for name, x in state.items()) == 2
    with pytest.raises(
        ValueError, match=r"lora_te2_.* is of text encoder 2, and this teacher has 1"
    ):
        merge_texts(models[:1], read_lora(path), 1.0)


@pytest.mark.parametrize("name", ["attn1.processor.to_q_lora", "attn1.processor.to_out_lora"])
def test_processors_of_old_diffusers_are_layers(name: str, tmp_path: Path):
    model, path = network("sd15"), tmp_path / "lora.safetensors"
    layer = "mid_block.attentions.0.transformer_blocks.0"
    tensors = {
        f"unet.{layer}.{name}.{way}.weight": torch.randn(shape)
        for way, shape in {"down": (RANK, 16), "up": (16, RANK)}.items()
    }
    save_tensors(tensors, path)
    end = "to_q" if "to_q" in name else "to_out.0"
    weight = model.get_parameter(f"{layer}.attn1.{end}.weight")
    before, (down, up) = weight.detach().clone(), tensors.values()
    merge(model, read_lora(path).network, 1.0, path)
    torch.testing.assert_close(weight.detach(), before + up @ down)


@pytest.mark.parametrize("place", ["metadata", "beside"])
def test_alpha_beside_the_tensors_counts(place: str, tmp_path: Path):
    model, path = network("sd15"), tmp_path / "lora.safetensors"
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    a, b = torch.randn(RANK, 16), torch.randn(16, RANK)
    tensors = {f"unet.{layer}.lora_A.weight": a, f"unet.{layer}.lora_B.weight": b}

    def write(**said):
        if place == "metadata":
            own = {f"unet.{key}": value for key, value in said.items()}
            save_tensors(tensors, path, {"lora_adapter_metadata": json.dumps(own)})
        else:
            save_tensors(tensors, path)
            path.with_name("adapter_config.json").write_text(json.dumps(said))

    write(lora_alpha=6, r=RANK, alpha_pattern={}, use_dora=False)
    weight = model.get_parameter(f"{layer}.weight")
    before = weight.detach().clone()
    merge(model, read_lora(path).network, 1.0, path)
    torch.testing.assert_close(weight.detach(), before + 3 * b @ a)
    write(lora_alpha=6, use_rslora=True)
    with pytest.raises(ValueError, match="has use_rslora=True, which is not supported"):
        read_lora(path)


LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    "names, words",
    [
        ({f"{LAYER}.dora_scale": (16, 1)}, r"no plain LoRA, but DoRA .*: mid_block.*dora_scale"),
        ({f"unet.{LAYER}.lora_magnitude_vector": (16,)}, "no plain LoRA, but DoRA"),
        ({"lora_unet_x.hada_w1_a": (2, 2)}, r"but LoHa .*: lora_unet_x\.hada_w1_a"),
        ({"lora_unet_x.lokr_w1": (2, 2)}, r"but LoKr .*: lora_unet_x\.lokr_w1"),
        ({"lora_unet_x.lora_mid.weight": (2, 2)}, "third factor"),
        ({"lora_unet_x.diff_b": (2,)}, r"what is lora_unet_x\.diff_b\?"),
        ({f"{LAYER}.lora_A.weight": (2, 16)}, "of mid_block.* it has no two factors"),
        ({f"{LAYER}.lora_A.weight": (2, 16), f"{LAYER}.lora_B.weight": (16, 3)}, "no common rank"),
        ({}, "has no tensors"),
    ],
)
def test_what_is_no_lora_is_named(names: dict, words: str, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_tensors({name: torch.zeros(shape) for name, shape in names.items()}, path)
    with pytest.raises(ValueError, match=words) as error:
        read_lora(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_of_another_network_is_named_and_changes_nothing(kind: str, tmp_path: Path):
    model, path = network(kind), tmp_path / "x.safetensors"
    before = {name: x.clone() for name, x in model.state_dict().items()}
    own = targets(kind, model)[0][0]
    weight = model.get_parameter(f"{own}.weight")
    factors = {
        f"unet.{own}.lora_A.weight": torch.ones(RANK, *weight.shape[1:]),
        f"unet.{own}.lora_B.weight": torch.ones(len(weight), RANK, *[1] * (weight.ndim - 2)),
    }
    for name, (a, b), words in [
        ("blocks.7.nothing", (4, 4), r"another network: unet\.blocks\.7\.nothing is no layer of"),
        (own, (weight[0].numel() + 1, 4), "a network of other sizes: unet"),
    ]:
        wrong = {
            f"unet.{name}.lora_A.weight": torch.ones(RANK, a),
            f"unet.{name}.lora_B.weight": torch.ones(b, RANK),
        }
        save_tensors(factors | wrong, path)
        with pytest.raises(ValueError, match=words):
            merge(model, read_lora(path).network, 1.0, path)
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name])
