"""The CLIP score is transformers' own cosine of whole models, whatever the batches."""

from pathlib import Path

import pytest
import torch

from dmd2.metrics.clip_score import MEAN, STD, ClipImages, ClipScore
from dmd2.metrics.preprocessing import Square
from pipelines import save_clip

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[text]'"
)
CAPTIONS = ["a red dot", "dot", "a dot a dot a dot"]


def test_it_is_the_whole_model_s_cosine(tmp_path: Path) -> None:
    folder = str(save_clip(tmp_path))
    images = torch.randint(
        0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.tensor([0, 1, 2, 1, 0])
    detector, score = ClipImages(folder, Square(8)), ClipScore("clip", folder, CAPTIONS, "a red ")
    for rows in ([0, 1], [2, 3, 4]):
        score.update(detector(images[rows]), labels[rows])
    whole = transformers.CLIPModel.from_pretrained(folder).eval()
    texts = [f"a red {CAPTIONS[i]}" for i in labels]
    tokens = transformers.CLIPTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=16, return_tensors="pt"
    )
    seen = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        found = whole(input_ids=tokens.input_ids, pixel_values=seen)
    cosines = (found.image_embeds * found.text_embeds).sum(1)
    assert cosines.std() > 1e-4
    assert float(score.compute()["clip"]) == pytest.approx(float(cosines.mean()), abs=1e-6)


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no CLIP at .*type metric\.suite") as error:
        ClipImages(str(tmp_path / "gone"), Square(8))
    assert "\n" not in str(error.value)
