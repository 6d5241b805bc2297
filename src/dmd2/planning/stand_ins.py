"""What a plan builds in the place of parts that read files, or want a package that is missing.

Each has the networks of what it stands for, with random weights. LPIPS wants torchvision all the
same.
"""

from typing import Any

from torch import nn

from dmd2.config.check import Config
from dmd2.losses.distances import LPIPS, average_pools
from dmd2.nets.autoencoder import TinyVAE
from dmd2.planning.eight_bit import PlannedAdamW8bit
from dmd2.runs.build import build


class PlannedLPIPS(LPIPS):
    """In the place of `LPIPS`, whose arguments it has."""

    def __init__(self, size: int | None = 224) -> None:
        # Here, since it imports torchvision, which is optional.
        from torchmetrics.functional.image.lpips import _LPIPS  # noqa: PLC0415

        nn.Module.__init__(self)
        self.size = size
        self.network = _LPIPS(pretrained=False, net="vgg", pnet_rand=True)
        average_pools(self.network)


class PlannedTinyVAE(TinyVAE):
    """In the place of `TinyVAE`, whose arguments it has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        node = {"_target_": "diffusers.AutoencoderTiny", "latent_channels": self.channels}
        self.network = nn.Module.to(build(node), self.dtype).requires_grad_(False).eval()

    def require(self) -> None:
        """It reads no file."""


STAND_INS = {"adamw_8bit": PlannedAdamW8bit, "LPIPS": PlannedLPIPS, "TinyVAE": PlannedTinyVAE}
"""By the last name of the node that they stand for."""


def with_stand_ins(config: Config) -> Config:
    """The same config with stand-ins for parts of its optimizer and its loss."""
    return config | {section: replaced(config[section]) for section in ("optimizer", "loss")}


def replaced(node: Any) -> Any:
    """A node with stand-ins in it."""
    if isinstance(node, list):
        return [replaced(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: replaced(part) for key, part in node.items()}
    stand_in = STAND_INS.get(str(node.get("_target_")).rpartition(".")[2])
    if stand_in is not None:
        found["_target_"] = f"{stand_in.__module__}.{stand_in.__qualname__}"
    return found
