"""ImageReward is the network in its authors' file."""

from pathlib import Path

import pytest
import torch

from blip import WORDS, TinyImageReward, save_image_reward
from dmd2.metrics.image_reward import BlipImages, ImageReward, image_reward_folder
from dmd2.metrics.preprocessing import picture

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[text]'"
)
CAPTIONS = ["a red dot", "dot", "a dot " * 30]  # the last is cut
LABELS = torch.tensor([0, 1, 2, 1, 0])
IMAGES = torch.randint(
    0, 256, (5, 3, 13, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture
def model(tmp_path: Path) -> TinyImageReward:
    return save_image_reward(tmp_path)


def score_of(source: str, sizes: tuple[int, ...]) -> float:
    detector, score = BlipImages(source), ImageReward("blip", source, CAPTIONS)
    for images, labels in zip(IMAGES.split(sizes), LABELS.split(sizes), strict=True):
        score.update(detector(images), labels)
    return float(score.compute()["image_reward"])


@torch.no_grad()
def test_it_is_the_reward_of_the_network_in_its_file(model: TinyImageReward, tmp_path) -> None:
    source = image_reward_folder(tmp_path, str(tmp_path), fetch=False)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
    )
    images = processor(images=[picture(x) for x in IMAGES], return_tensors="pt").pixel_values
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    fixed = {"padding": "max_length", "truncation": True, "max_length": 35}
    texts = tokenizer([CAPTIONS[i] for i in LABELS], **fixed, return_tensors="pt")
    rewards = model(images, texts.input_ids, texts.attention_mask)
    assert rewards.std() > 0.05
    found = score_of(source, (5,))
    assert found == pytest.approx(float(rewards.mean()), abs=1e-5)
    assert score_of(source, (1, 3, 1)) == pytest.approx(found, abs=1e-5)
    (tmp_path / "ImageReward.pt").unlink()
    assert image_reward_folder(tmp_path, "gone", fetch=False) == source  # read, and not made


def test_wrong_sources_are_refused_in_a_line(model: TinyImageReward, tmp_path: Path) -> None:
    file, weights = tmp_path / "ImageReward.pt", model.state_dict()

    def without(part: str) -> dict[str, torch.Tensor]:
        return {name: x for name, x in weights.items() if part not in name}

    norm = "blip.visual_encoder.blocks.1.norm1.weight"
    for content, said in (
        ([1], "is no state dict"),
        ({"visual.proj": torch.ones(1)}, "is no ImageReward: it has a weight 'visual.proj'"),
        (without("word_embeddings"), "its text cannot be built .*embeddings.word_embeddings"),
        ({}, "is no ImageReward: its vision cannot be built"),
        (without("mlp.layers"), "its reward cannot be built .*does not end in one number"),
        (without("mlp.layers.4"), "its reward cannot be built .*does not end in one number"),
        (without("blocks.1.norm1"), "its vision's encoder.layers.1.layer_norm1.bias differs"),
        (weights | {norm: torch.ones(5)}, "its vision's encoder.layers.1.layer_norm1.w.* differs"),
        (weights | {norm: torch.tensor(1.0)}, "its vision's encoder.layers.1.layer_norm1"),
        (print, "is refused, and nothing in it was run"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=said) as error:
            image_reward_folder(tmp_path, str(tmp_path), fetch=False)
        assert "\n" not in str(error.value)
    torch.save(weights, file)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer .*at gone: .*source\.tokenizer=DIR"):
        image_reward_folder(tmp_path, "gone", fetch=False)
    for words, kind, said in (
        (WORDS[:5], FileNotFoundError, r"no tokenizer of BERT at .*source\.tokenizer=DIR"),
        (WORDS[:7], ValueError, r"has 7 words, and .*another's 8; type .*source\.tokenizer=DIR"),
    ):
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        with pytest.raises(kind, match=said):
            image_reward_folder(tmp_path, str(tmp_path), fetch=False)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"download https://.*ImageReward\.pt"):
        image_reward_folder(tmp_path, str(tmp_path), fetch=False)
    assert not (tmp_path / "ImageReward-v1.0").exists()
