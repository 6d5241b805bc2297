"""Captions as conditions: what CLIP makes of a caption, by its number, cached or not."""

from pathlib import Path

import pytest
import torch

from dmd2.data.captions import fill_phrasings
from dmd2.diffusion.conditioning import drop
from dmd2.nets.text import encoder as encoder_module
from dmd2.nets.text.clip import CLIP, CLIPPair
from dmd2.nets.text.prompts import CachedPrompts, Prompts, prompts
from dmd2.nets.text.tiny import tiny_clip

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: make install EXTRAS=dev,text"
)

WORDS = ["zero", "one", "two", "seven"]
CAPTIONS = fill_phrasings(["a {}", "handwritten {}"], WORDS)


def tiny(seed: int = 0) -> CLIP:
    return tiny_clip(
        [*WORDS, "a", "handwritten"], hidden_size=16, num_layers=2, max_length=8, seed=seed
    )


def pair(size: int = 512) -> CLIPPair:
    first, second = tiny(0), tiny(1)
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        **second.models[0].config.to_dict() | {"projection_dim": 6}
    )
    projected = transformers.CLIPTextModelWithProjection(config)
    return CLIPPair([*first.tokenizers, *second.tokenizers], [first.models[0], projected], size)


def test_known_words_are_one_token_each_and_captions_are_padded():
    tokens = tiny().tokens(CAPTIONS)
    assert tokens.shape == (8, 1, 8) and tokens.dtype == torch.int32
    assert (
        tokens[:, 0, 0].tolist() == [0] * 8 and (tokens[:, 0, 3:] == 1).all()
    )  # start, two words, ends
    assert len({tuple(row) for row in tokens[:, 0, 1:3].tolist()}) == 8
    assert tokens[3, 0, 2] == tokens[7, 0, 2] != tokens[2, 0, 2]


def test_long_captions_are_cut_with_one_warning_that_counts_them():
    with pytest.warns(UserWarning, match="2 of 3 captions are cut to 8 tokens") as caught:
        tokens = tiny().tokens(["a seven", "one " * 20, "two " * 9])
    assert len(caught) == 1 and (tokens[:, 0, -1] == 1).all()


def test_a_label_is_the_number_of_a_caption():
    encoder = tiny()
    conditioner = Prompts(CAPTIONS, encoder, "empty")
    assert conditioner.num_classes == 8
    cond = conditioner(torch.tensor([7, 0]))
    with torch.no_grad():
        expected = encoder.models[0](
            encoder.tokens(["handwritten seven", "a zero"])[:, 0]
        ).last_hidden_state
    torch.testing.assert_close(cond["text"], expected)


def test_the_twin_is_the_empty_caption_or_zeros():
    encoder = tiny()
    for twin in ("empty", "zeros"):
        conditioner = Prompts(CAPTIONS, encoder, twin)
        cond = conditioner(torch.arange(3))
        null = conditioner.null(cond)
        empty = encoder(encoder.tokens([""]))["text"] if twin == "empty" else torch.zeros(1, 8, 16)
        torch.testing.assert_close(null["text"], empty.expand(3, -1, -1))
        dropped = drop(cond, null, torch.tensor([True, False, False]))["text"]
        assert torch.equal(dropped[0], null["text"][0]) and torch.equal(
            dropped[1:], cond["text"][1:]
        )


def test_the_other_twin_is_that_of_the_other_choice(tmp_path: Path):
    empty, zeros = (Prompts(CAPTIONS, tiny(), twin) for twin in ("empty", "zeros"))
    cond = empty(torch.arange(3))
    for one, another in ((empty, zeros), (zeros, empty)):
        assert torch.equal(one.other_null(cond)["text"], another.null(cond)["text"])
    cached = CachedPrompts(CAPTIONS, tiny(), "zeros", tmp_path)
    assert torch.equal(cached.other_null(cond)["text"], empty.null(cond)["text"])


@pytest.mark.parametrize("twin", ["empty", "zeros"])
@pytest.mark.parametrize("encoder", [tiny, pair])
def test_a_negative_text_stands_in_the_twin_s_place(encoder, twin: str, tmp_path: Path):
    labels, read = torch.tensor([1, 4]), encoder()
    for text in ("seven one", ""):
        with torch.no_grad():
            expected = read(read.tokens([text] * 2))
        online = Prompts(CAPTIONS, encoder(), twin, negative=text)
        cached = CachedPrompts(CAPTIONS, encoder(), twin, tmp_path, negative=text)
        for conditioner in (online, cached, online.of(["a two"])):
            torch.testing.assert_close(conditioner.null(cached(labels)), expected)
        torch.testing.assert_close(cached(labels), Prompts(CAPTIONS, read, twin)(labels))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1, "the captions' table is the same"
    with pytest.warns(UserWarning, match="1 of 1 captions are cut to 8 tokens"):
        Prompts(CAPTIONS, read, twin, negative="seven " * 9)


def test_sdxl_reads_penultimate_states_side_by_side_and_its_twin_keeps_the_sizes():
    encoder = pair()
    conditioner = Prompts(CAPTIONS, encoder, "zeros")
    cond = conditioner(torch.tensor([3]))
    tokens = encoder.tokens(CAPTIONS[3:4])
    with torch.no_grad():
        states = [
            model(ids, output_hidden_states=True)
            for model, ids in zip(encoder.models, tokens.unbind(1), strict=True)
        ]
    torch.testing.assert_close(
        cond["text"], torch.cat([state.hidden_states[-2] for state in states], -1)
    )
    torch.testing.assert_close(cond["pooled"], states[1].text_embeds)
    null = conditioner.null(cond)
    assert null["text"].abs().max() == null["pooled"].abs().max() == 0
    assert null["time_ids"].tolist() == cond["time_ids"].tolist() == [[512, 512, 0, 0, 512, 512]]
    assert cond["time_ids"].data_ptr() == encoder.time_ids.data_ptr()  # no copy from the host


@pytest.mark.parametrize("encoder", [tiny, pair])
def test_the_table_holds_what_the_encoder_makes(encoder, tmp_path: Path):
    online, cached = (
        Prompts(CAPTIONS, encoder(), "empty"),
        CachedPrompts(CAPTIONS, encoder(), "empty", tmp_path),
    )
    labels = torch.tensor([6, 1, 1])
    torch.testing.assert_close(cached(labels), online(labels))
    torch.testing.assert_close(cached.null(cached(labels)), online.null(online(labels)))
    assert not list(cached.parameters()), "no encoder stays"
    assert not cached.state_dict(), "and nothing of it goes into a checkpoint"


def test_a_table_is_made_once_and_anew_for_other_captions_or_weights(tmp_path: Path):
    CachedPrompts(CAPTIONS, tiny(), "empty", tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    made = path.stat()
    CachedPrompts(CAPTIONS, tiny(), "zeros", tmp_path)
    assert path.stat().st_ino == made.st_ino, "a table that is made has a file of its own"
    CachedPrompts(CAPTIONS[1:], tiny(), "empty", tmp_path)
    CachedPrompts(CAPTIONS, tiny(seed=1), "empty", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize("damage", ["bit", "shorter", "record"])
def test_a_damaged_table_is_made_again(damage: str, tmp_path: Path):
    CachedPrompts(CAPTIONS, tiny(), "empty", tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    (record,) = tmp_path.glob("*.json")
    whole, file = path.read_bytes(), record if damage == "record" else path
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content[:-4] if damage == "shorter" else content)
    with pytest.warns(UserWarning, match="it is made again"):
        CachedPrompts(CAPTIONS, tiny(), "empty", tmp_path)
    assert path.read_bytes() == whole


def test_a_cache_is_the_choice_of_a_table_and_a_metric_s_captions_are_encoded_as_they_come(
    tmp_path: Path,
):
    online = prompts(CAPTIONS, tiny(), "empty", "seven")
    cached = prompts(CAPTIONS, tiny(), "empty", "seven", tmp_path)
    assert type(online) is Prompts and isinstance(cached, CachedPrompts)
    others = ["two nine", "a one"]
    found, expected = (conditioner.of(others) for conditioner in (cached, online))
    torch.testing.assert_close(found(torch.arange(2)), expected(torch.arange(2)))
    torch.testing.assert_close(
        found.null(found(torch.arange(2))), cached.null(cached(torch.arange(2)))
    )


def test_a_table_holds_nothing_but_what_comes_from_words(tmp_path: Path):
    """The size that SDXL's condition tells is of the configuration at hand, whoever made the
    table.
    """
    for size in (512, 64):
        encoder = pair(size)
        cond = CachedPrompts(CAPTIONS, encoder, "zeros", tmp_path)(torch.tensor([5, 2]))
        assert cond["time_ids"].tolist() == [[size, size, 0, 0, size, size]] * 2
        torch.testing.assert_close(
            cond["text"], Prompts(CAPTIONS, encoder, "zeros")(torch.tensor([5, 2]))["text"]
        )
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_cache_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "captions.txt").touch()
    with pytest.raises(
        ValueError, match=r"captions\.txt is a file.*teacher\.conditioner\.cache=DIR"
    ):
        CachedPrompts(CAPTIONS, tiny(), "empty", tmp_path / "captions.txt")


@pytest.mark.parametrize("encoder", [tiny, pair])
def test_a_long_table_is_tokenized_in_parts(encoder, monkeypatch: pytest.MonkeyPatch):
    long = [*CAPTIONS, "seven " * 9, "one two", "two " * 20]
    with pytest.warns(UserWarning, match=f"2 of {len(long)} captions are cut to 8 tokens"):
        whole = encoder().tokens(long)
    monkeypatch.setattr(encoder_module, "AT_ONCE", 3)
    with pytest.warns(UserWarning, match=f"2 of {len(long)} captions are cut to 8 tokens") as said:
        parts = encoder().tokens(long)
    assert len(said) == 1 and torch.equal(parts, whole)


def test_no_captions_and_an_unknown_twin_are_refused():
    with pytest.raises(ValueError, match="need captions"):
        Prompts([], tiny(), "empty")
    with pytest.raises(ValueError, match="twin=empty or zeros"):
        Prompts(CAPTIONS, tiny(), "nothing")
