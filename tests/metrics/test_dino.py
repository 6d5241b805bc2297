"""DINOv2 from a local folder: the class token of resized, normalised images; here a tiny net of
random weights.
"""

import pytest
import torch

from dmd2.metrics.dino import DinoV2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with config.json and model.safetensors."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra: eval)"
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    folder = tmp_path_factory.mktemp("dino")
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def test_features_are_the_class_token_of_normalised_images(folder):
    detector = DinoV2(folder)
    grey = torch.full((2, 1, 32, 32), 128, dtype=torch.uint8)
    assert detector(grey).shape == (2, 16) and not detector(grey).requires_grad
    pixels = torch.full((2, 3, 224, 224), 128 / 255) - torch.tensor([0.485, 0.456, 0.406]).view(
        3, 1, 1
    )
    tokens = detector.net(
        pixels / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    ).last_hidden_state
    torch.testing.assert_close(detector(grey), tokens[:, 0].detach(), atol=1e-4, rtol=1e-4)


def test_the_key_is_the_weights(folder):
    assert DinoV2(folder).key() == DinoV2(folder).key()


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors of facebook/dinov2-large"):
        DinoV2(tmp_path)
