"""Preference scores are the published formulas, computed by the models' own parts."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.metrics.clip_score import ClipImages, ClipScore
from dmd2.metrics.hpsv2 import hpsv2_folder
from dmd2.metrics.preferences import HPSv2, PickScore
from dmd2.metrics.preprocessing import Square, picture
from pipelines import save_clip

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[text]'"
)
CAPTIONS = ["a red dot", "dot", "a dot a dot a dot"]
LABELS = torch.tensor([0, 1, 2, 1, 0])
IMAGES = torch.randint(
    0, 256, (5, 3, 13, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny CLIP whose temperature is none of the usual ones."""
    folder = save_clip(tmp_path_factory.mktemp("clip"))
    model = transformers.CLIPModel.from_pretrained(folder)
    model.logit_scale.data.fill_(3.7)
    model.save_pretrained(folder)
    return str(folder)


def score_of(kind: type[ClipScore], source: str, sizes: tuple[int, ...]) -> float:
    """The score of all images, in batches of `sizes`."""
    detector = ClipImages(source, Square(8, "bicubic"))
    score = kind("clip", source, CAPTIONS, "")
    for images, labels in zip(IMAGES.split(sizes), LABELS.split(sizes), strict=True):
        score.update(detector(images), labels)
    (found,) = score.compute().values()
    return float(found)


def published_inputs(source: str) -> dict[str, Tensor]:
    """What the models' cards feed them: CLIP's own image processor and tokenizer."""
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
    )
    tokens = transformers.CLIPTokenizer.from_pretrained(source)(
        [CAPTIONS[i] for i in LABELS], padding=True, truncation=True, return_tensors="pt"
    )
    images: Any = processor(images=[picture(x) for x in IMAGES], return_tensors="pt")
    return {"pixel_values": images.pixel_values, "input_ids": tokens.input_ids}


@torch.no_grad()
def test_pickscore_is_the_diagonal_of_the_model_s_own_logits(clip: str) -> None:
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    inputs = published_inputs(clip)
    scores = model(**inputs).logits_per_image.diagonal()
    assert scores.std() > 1e-3
    assert score_of(PickScore, clip, (5,)) == pytest.approx(float(scores.mean()), abs=1e-4)


@pytest.mark.parametrize("kind", [PickScore, HPSv2])
def test_batches_of_any_size_have_the_same_score(clip: str, kind: type[ClipScore]) -> None:
    whole = score_of(kind, clip, (5,))
    assert score_of(kind, clip, (1, 3, 1)) == pytest.approx(whole, abs=1e-5)


def test_hpsv2_is_100_times_the_clip_score(clip: str) -> None:
    expected = 100 * score_of(ClipScore, clip, (5,))
    assert score_of(HPSv2, clip, (5,)) == pytest.approx(expected)


class OpenClip(nn.Module):
    """A CLIP of the published architecture under open_clip's names, of torch's own attention."""

    class Block(nn.Module):
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
            layers = {
                "c_fc": nn.Linear(width, inner),
                "gelu": nn.GELU(),
                "c_proj": nn.Linear(inner, width),
            }
            self.mlp = nn.Sequential(OrderedDict(layers))

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            return x + self.mlp(self.ln_2(x))

    def __init__(self, vocabulary: int, length: int, width: int = 16, joint: int = 12) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(length, width))
        self.text_projection = nn.Parameter(torch.randn(width, joint))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(self.Block(width, 64) for _ in range(2))
        self.ln_final = nn.LayerNorm(width)
        self.visual = nn.Module()
        self.visual.class_embedding = nn.Parameter(torch.randn(width))
        self.visual.positional_embedding = nn.Parameter(torch.randn(5, width))
        self.visual.proj = nn.Parameter(torch.randn(width, joint))
        self.visual.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer = nn.Module()
        self.visual.transformer.resblocks = nn.ModuleList(self.Block(width, 32) for _ in range(2))

    def image(self, x: Tensor) -> Tensor:
        see = self.visual
        patches = see.conv1(x).flatten(2).mT
        first = see.class_embedding.expand(len(x), 1, -1)
        x = see.ln_pre(torch.cat([first, patches], 1) + see.positional_embedding)
        for block in see.transformer.resblocks:
            x = block(x)
        return F.normalize(see.ln_post(x[:, 0]) @ see.proj, dim=1)

    def text(self, tokens: Tensor, ends: Tensor) -> Tensor:
        num = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:num]
        for block in self.transformer.resblocks:
            x = block(x, torch.full((num, num), -torch.inf).triu(1))
        return F.normalize(
            self.ln_final(x)[torch.arange(len(x)), ends] @ self.text_projection, dim=1
        )


@pytest.fixture
def hpsv2(clip: str, tmp_path: Path) -> OpenClip:
    """A tiny network in a file as HPSv2.1's; its norms and biases are random, too."""
    config = transformers.CLIPConfig.from_pretrained(clip)
    torch.manual_seed(1)
    model = OpenClip(config.text_config.vocab_size, config.text_config.max_position_embeddings)
    for tensor in model.parameters():
        tensor.data += torch.randn_like(tensor) * 0.2
    torch.save({"state_dict": model.state_dict()}, tmp_path / "HPS_v2.1_compressed.pt")
    return model.eval()


@pytest.fixture
def gelu(clip: str, tmp_path: Path) -> str:
    """Architecture and tokenizer of a CLIP with GELU, as open_clip's large ones; no weights."""
    folder = tmp_path / "architecture"
    config = transformers.CLIPConfig.from_pretrained(clip)
    config.text_config.hidden_act = config.vision_config.hidden_act = "gelu"
    config.save_pretrained(folder)
    transformers.CLIPTokenizer.from_pretrained(clip).save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def test_hpsv2_is_the_cosine_of_the_network_in_its_file(
    hpsv2: OpenClip, gelu: str, tmp_path: Path
) -> None:
    source = hpsv2_folder(tmp_path, gelu, fetch=False)
    inputs = published_inputs(source)
    tokens = inputs["input_ids"]
    texts = hpsv2.text(tokens, (tokens == tokens[0, -1]).int().argmax(1))
    scores = 100 * (hpsv2.image(inputs["pixel_values"]) * texts).sum(1)
    assert scores.std() > 1
    assert score_of(HPSv2, source, (5,)) == pytest.approx(float(scores.mean()), abs=1e-4)
    (tmp_path / "HPS_v2.1_compressed.pt").unlink()
    assert hpsv2_folder(tmp_path, gelu, fetch=False) == source  # read again, and not made


def test_wrong_sources_are_refused_in_a_line(hpsv2: OpenClip, gelu: str, tmp_path: Path) -> None:
    file = tmp_path / "HPS_v2.1_compressed.pt"
    for content, said in (
        ({"model": 1}, "is no state dict"),
        ({"state_dict": {"blip.mlp": torch.ones(1)}}, "is no CLIP of open_clip's: .*'blip.mlp'"),
        ({"state_dict": {"logit_scale": torch.ones(1)}}, r"another network than .*clip=DIR"),
        (print, "is refused, and nothing in it was run"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=said) as error:
            hpsv2_folder(tmp_path, gelu, fetch=False)
        assert "\n" not in str(error.value)
    torch.save({"state_dict": hpsv2.state_dict()}, file)
    for words in Path(gelu).glob("tokenizer*"):
        words.unlink()
    with pytest.raises(FileNotFoundError, match=r"no CLIP at .*source\.clip=DIR"):
        hpsv2_folder(tmp_path, gelu, fetch=False)
    with pytest.raises(FileNotFoundError, match=r"no CLIP at gone: .*source\.clip=DIR"):
        hpsv2_folder(tmp_path, "gone", fetch=False)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"download https://.*HPS_v2\.1_compressed\.pt"):
        hpsv2_folder(tmp_path, gelu, fetch=False)
    assert not (tmp_path / "HPS_v2.1").exists()
