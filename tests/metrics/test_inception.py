"""Inception wrappers: the message for absent weights, checked hashes, and both ways to call a
net.
"""

import warnings

import pytest
import torch
from torch import Tensor, nn

from dmd2.metrics.inception import CleanFidClasses, CleanFidInception, TorchFidelityInception


class Tiny(nn.Module):
    """The calling convention of inception-2015-12-05.pt."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 16, 3)

    def forward(
        self, img: Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        if not return_features:
            return (img.float().mean([2, 3]) + (0 if no_output_bias else 9)).softmax(1)
        return self.layers((img.float() - 128) / 128).mean([2, 3])


@pytest.mark.parametrize(
    "make, name, host",
    [
        (CleanFidInception, "inception-2015-12-05.pt", "nvlabs-fi-cdn.nvidia.com"),
        (TorchFidelityInception, "weights-inception-2015-12-05-6726825d.pth", "github.com/toshas"),
    ],
)
def test_absent_weights_say_what_to_put_where(make, name, host, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        make(tmp_path, fetch=False)
    message = str(error.value)
    assert "\n" not in message
    assert f"https://{host}" in message
    assert str(tmp_path / name) in message
    (tmp_path / name).write_bytes(b"half a download")
    with pytest.raises(ValueError, match="SHA-256"):
        make(tmp_path)


def test_a_torchscript_file_gives_features_of_colour_and_grey_images(tmp_path):
    net = Tiny().eval()
    torch.jit.script(net).save(str(tmp_path / "inception-2015-12-05.pt"))
    with warnings.catch_warnings(action="error"):
        detector = CleanFidInception(tmp_path, sha256=None)
    colour = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(detector(colour), net(colour, return_features=True).detach())
    grey = colour[:, :1]
    assert torch.equal(detector(grey), detector(grey.repeat(1, 3, 1, 1)))
    assert detector(grey).shape == (5, 16)
    assert not detector(grey).requires_grad
    classes = CleanFidClasses(tmp_path, sha256=None)(colour)
    torch.testing.assert_close(classes.exp(), net(colour, no_output_bias=True).detach())
    assert detector.key() is None  # an unchecked file has no name to keep features under


def test_torch_fidelity_net_from_bare_tensors(tmp_path, monkeypatch):
    theirs = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3",
        reason="torch-fidelity is not installed (extra: eval)",
    )
    with monkeypatch.context() as patch:  # a net of random weights, without its download
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = theirs.FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(net.state_dict(), tmp_path / "weights-inception-2015-12-05-6726825d.pth")
    detector = TorchFidelityInception(tmp_path, sha256=None)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert detector(images).shape == (2, 2048)
    torch.testing.assert_close(detector(images), net(images)[0])
