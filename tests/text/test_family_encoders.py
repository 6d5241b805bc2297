"""Text encoders of the transformer families: what the stock pipelines make of captions, cached or
not.
"""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, drop, join
from dmd2.io.hub import config_in
from dmd2.nets.pipeline_families import FAMILIES as ROWS
from dmd2.nets.text import CachedPrompts, Prompts, TextEncoder
from dmd2.nets.text.families import klein_text, pixart_text, sd3_text
from families import FAMILIES, save_family

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text"
)

NAMES = [name for name in FAMILIES if name != "dit"]
MASKED = {"chroma", "sana", "qwen", "zimage", "pixart"}
CAPTIONS = ["A red dot", "two small dots, one of them Green and the other one blue"]


def load(folder: Path, **arguments: Any) -> TextEncoder:
    kind = config_in(folder, "transformer/config.json")["_class_name"]
    return ROWS[kind].text(str(folder), **arguments)


def conds(encoder: TextEncoder, negative: str | None = None) -> tuple[Cond, Cond]:
    """The condition of both captions, and of none or a negative text."""
    with torch.no_grad():
        return encoder(encoder.tokens(CAPTIONS)), encoder(encoder.null_tokens(negative))


def stock(name: str, folder: Path, negative: str | None, **parts: None) -> tuple[Cond, Cond]:
    """The same by the pipeline of diffusers, called as it calls itself."""
    # Lists of their own: Z-Image's pipeline writes its template into the list that it is given.
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    given = {} if negative is None else {"negative_prompt": negative}
    with torch.no_grad():
        if name == "sd3":
            text, null, pooled, null_pooled = pipeline.encode_prompt(
                [*CAPTIONS], None, None, **given
            )
            return {"text": text, "pooled": pooled}, {"text": null[:1], "pooled": null_pooled[:1]}
        if name == "flux":
            text, pooled, _ = pipeline.encode_prompt([*CAPTIONS], None)
            null, null_pooled, _ = pipeline.encode_prompt([negative or ""], None)
            return {"text": text, "pooled": pooled}, {"text": null, "pooled": null_pooled}
        if name == "flux2":
            null, _ = pipeline.encode_prompt(negative or "")
            return {"text": pipeline.encode_prompt([*CAPTIONS])[0]}, {"text": null}
        if name == "chroma":
            text, _, mask, null, _, null_mask = pipeline.encode_prompt([*CAPTIONS], **given)
        elif name == "qwen":
            text, mask = pipeline.encode_prompt([*CAPTIONS])
            # The pipeline gives no mask where a batch has no pads.
            null, _ = pipeline.encode_prompt(" " if negative is None else negative)
            null_mask = torch.ones(null.shape[:2])
        elif name == "zimage":
            # The pipeline writes its templates into the lists.
            texts, nulls = pipeline.encode_prompt(
                [*CAPTIONS], negative_prompt=None if negative is None else [negative] * 2
            )
            text, mask = padded(texts)
            null, null_mask = padded(nulls[:1])
        elif name == "sana":
            lines = instruction(pipeline)
            text, mask, null, null_mask = pipeline.encode_prompt(
                [*CAPTIONS], complex_human_instruction=lines, **given
            )
        else:
            text, mask, null, null_mask = pipeline.encode_prompt([*CAPTIONS], **given)
    if name == "auraflow":
        return {"text": text}, {"text": null[:1]}
    return (
        {"text": text, "mask": mask.bool()},
        {"text": null[:1], "mask": null_mask[:1].bool()},
    )


def instruction(pipeline: Any) -> Any:
    called = inspect.signature(type(pipeline).__call__)
    return called.parameters["complex_human_instruction"].default


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(map(len, rows))) < torch.tensor([[len(row)] for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask


def difference(ours: Cond, theirs: Cond) -> float:
    """The largest, over what masks keep; masks and shapes must be equal but for the padding."""
    assert set(ours) == set(theirs)
    text, expected = ours["text"], theirs["text"]
    if "mask" in ours:
        num = expected.shape[1]
        assert ours["mask"].dtype == torch.bool
        assert torch.equal(ours["mask"][:, :num], theirs["mask"])
        assert not ours["mask"][:, num:].any()
        assert text[~ours["mask"]].abs().sum() == 0, "what is masked is zeros"
        text, expected = text[:, :num], expected * theirs["mask"][..., None]
    assert text.dtype == torch.float32 and text.shape == expected.shape
    largest = (text - expected).abs().max()
    if "pooled" in ours:
        assert ours["pooled"].shape == theirs["pooled"].shape
        largest = max(largest, (ours["pooled"] - theirs["pooled"]).abs().max())
    return float(largest)


@pytest.mark.parametrize("negative", [None, "blurry, Grey"])
@pytest.mark.parametrize("name", NAMES)
def test_conditions_are_the_stock_pipeline_s(name: str, negative: str | None, folders):
    theirs = stock(name, folders(name), negative)
    found_here = conds(load(folders(name)), negative)
    assert found_here[0]["text"].abs().max() > 0.1
    for ours, expected in zip(found_here, theirs, strict=True):
        found = difference(ours, expected)
        print(f"{name} {negative!r}: {found:.1e}")
        assert found <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_conditions_of_captions_and_of_none_join_and_drop(name: str, folders):
    conditioner = Prompts(CAPTIONS, load(folders(name)), "empty")
    cond = conditioner(torch.tensor([1, 0, 1]))
    assert ("mask" in cond) == (name in MASKED)
    null = conditioner.null(cond)
    both = join(cond, null)
    assert all(len(value) == 6 for value in both.values())
    dropped = drop(cond, null, torch.tensor([True, False, False]))
    for key, value in dropped.items():
        assert torch.equal(value[0], null[key][0]) and torch.equal(value[1:], cond[key][1:])


@pytest.mark.parametrize("name", NAMES)
def test_captions_that_are_cut_are_counted(name: str, folders):
    length = {"zimage": 150, "flux2": 150}.get(name, 200)
    encoder = load(folders(name), length=length)
    with pytest.warns(UserWarning, match=f"1 of 3 captions are cut to {length} tokens") as caught:
        tokens = encoder.tokens([*CAPTIONS, "dot " * 200])
    assert len(caught) == 1 and len(tokens) == 3 and tokens.dtype == torch.int32


def test_nothing_is_a_space_for_qwen_and_goes_without_instruction_for_sana(folders):
    for name, caption in (("qwen", " "), ("pixart", ""), ("zimage", "")):
        encoder = load(folders(name))
        assert torch.equal(encoder.null_tokens(None), encoder.tokens([caption]))
        assert torch.equal(encoder.null_tokens("a dot"), encoder.tokens(["a dot"]))
    sana = load(folders("sana"))
    assert sana.null_tokens(None).shape == (1, 300) and sana.tokens([""]).shape[1] > 1000


def test_a_negative_that_is_empty_is_not_the_space(folders):
    encoder = load(folders("qwen"))
    assert torch.equal(encoder.null_tokens(""), encoder.tokens([""]))


@pytest.mark.parametrize("name", NAMES)
def test_a_cache_has_what_the_encoder_makes_rounded_to_bfloat16(name: str, folders, tmp_path):
    online = Prompts(CAPTIONS, load(folders(name)), "empty")
    cached = CachedPrompts(CAPTIONS, load(folders(name)), "empty", tmp_path)
    labels = torch.tensor([1, 0, 1])
    expected, found = online(labels), cached(labels)
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value.dtype == expected[key].dtype
        rounded = expected[key] if key == "mask" else expected[key].bfloat16().float()
        assert torch.equal(value, rounded)
        assert torch.equal(cached.null(found)[key], online.null(expected)[key])
    again = CachedPrompts(CAPTIONS, load(folders(name)), "empty", tmp_path)
    assert torch.equal(again(labels)["text"], found["text"])
    (path,) = tmp_path.glob("*.safetensors")
    if name in MASKED:
        kept = expected["mask"][:2].sum()
        width = expected["text"].shape[-1]
        assert path.stat().st_size < 5000 + 2 * kept * width, "pads are not stored"


def test_zeros_leave_the_mask(folders):
    encoder = load(folders("pixart"))
    zeros, empty = (Prompts(CAPTIONS, encoder, twin) for twin in ("zeros", "empty"))
    found, expected = (prompts.null(prompts(torch.arange(2))) for prompts in (zeros, empty))
    assert found["text"].abs().sum() == 0
    assert torch.equal(found["mask"], expected["mask"]) and found["mask"].any()


def resident_bytes() -> int:
    """Memory of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def test_a_long_table_stays_on_disk(folders, tmp_path: Path, monkeypatch):
    """2000 captions of a network that reads its pads, in 256 MB."""
    encoder = load(folders("flux"), length=128)

    def wide(tokens: Tensor) -> Cond:
        text = tokens[:, -128:, None].float().expand(-1, -1, 500)
        return {"text": text, "pooled": tokens[:, :16].float()}

    monkeypatch.setattr(encoder, "forward", wide)
    captions = [f"dot {i}" for i in range(2000)]
    CachedPrompts(captions, encoder, "empty", tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    assert path.stat().st_size > 250e6
    before = resident_bytes()
    cached = CachedPrompts(captions, encoder, "empty", tmp_path)
    assert sum(buffer.nbytes for buffer in cached.buffers()) < 1e6
    labels = torch.tensor([1999, 3])
    expected = wide(encoder.tokens([captions[1999], captions[3]]))
    assert torch.equal(cached(labels)["text"], expected["text"].bfloat16().float())
    assert resident_bytes() - before < 100e6


def test_stable_diffusion_3_goes_without_its_third_encoder(tmp_path: Path):
    folder = save_family(tmp_path / "sd3", "sd3")
    whole, _ = conds(sd3_text(str(folder)))
    index = folder / "model_index.json"
    without = json.loads(index.read_text()) | {
        "text_encoder_3": [None, None],
        "tokenizer_3": [None, None],
    }
    index.write_text(json.dumps(without))
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    theirs = stock("sd3", folder, None, text_encoder_3=None, tokenizer_3=None)
    ours = conds(sd3_text(str(folder)))
    for found, expected in zip(ours, theirs, strict=True):
        assert difference(found, expected) <= 1e-5
    assert ours[0]["text"].shape == whole["text"].shape
    assert ours[0]["text"][:, 77:].abs().max() == 0


def test_lengths_and_layers_are_choices(folders):
    alpha = pixart_text(str(folders("pixart")), length=120)
    assert conds(alpha)[0]["mask"].shape == (2, 120)
    one = conds(klein_text(str(folders("flux2")), layers=[9]))[0]["text"]
    three = conds(klein_text(str(folders("flux2"))))[0]["text"]
    torch.testing.assert_close(one, three[..., :16])


def test_a_cache_tells_layers_apart(folders, tmp_path: Path):
    for layers in ([1, 2, 3], [9, 18, 27]):
        CachedPrompts(CAPTIONS, klein_text(str(folders("flux2")), layers=layers), "empty", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_text_model_of_another_class_is_refused(folders):
    with pytest.raises(ValueError, match=r"text_encoder of .* is T5EncoderModel, and not a Qwen3"):
        klein_text(str(folders("pixart")))


@pytest.mark.parametrize("left", ["nothing", "its config"])
@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_without_its_words_is_refused(name: str, left: str, folders, tmp_path: Path):
    """transformers makes one that reads all captions alike."""
    tokenizers = sorted(path.name for path in folders(name).glob("tokenizer*"))
    assert tokenizers
    for i, tokenizer in enumerate(tokenizers):
        folder = Path(shutil.copytree(folders(name), tmp_path / f"copy{i}"))
        for file in (folder / tokenizer).iterdir():
            if left == "nothing" or file.name != "tokenizer_config.json":
                file.unlink()
        place = rf"copy{i}/{tokenizer}: it has no vocab|{tokenizer} of .*copy{i} cannot be built"
        with pytest.raises((OSError, ValueError), match=place) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_weights_are_held_in_the_dtype_and_conditions_are_float32(folders):
    for name in ("sd3", "qwen"):
        encoder = load(folders(name), dtype="bfloat16")
        assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
        cond, _ = conds(encoder)
        assert cond["text"].dtype == torch.float32
