"""Preference scores are the published formulas, computed by the models' own parts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmd2.metrics.clip_score import ClipImages, ClipScore
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
