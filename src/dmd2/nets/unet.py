"""Text-conditioned U-Nets of diffusers (`UNet2DConditionModel`) as denoisers: Stable Diffusion 1.5,
SDXL, and small ones made from a config.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Prediction, last
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.nets.checkpointing import Checkpointing
from dmd2.nets.diffusers_net import DiffusersNet, Tap

MIDDLE = "mid_block"
"""The layer half-way: the tap 0.5, a U-Net's only depth."""
NUM_SIZES = 6
"""SDXL's time_ids: original size, crop corner and target size, two numbers each."""
DECODER = ("up_blocks", "conv_norm_out", "conv_act", "conv_out")
"""Where the names of the decoder's layers begin."""
REPEATED = ("ResnetBlock2D", "BasicTransformerBlock")
"""diffusers' classes of the layers that most of the network is made of."""


class UNet(DiffusersNet):
    """A `UNet2DConditionModel` that reads x_t [B, C, H, W] and embedded text, cond["text"]
    [B, L, D].

    Arguments are those of `DiffusersNet`. Raises ValueError for a tap behind the encoder.
    """

    folder = "unet"
    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
        "time_emb_proj",
    )

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prediction: Prediction,
        taps: Sequence[Tap] = (),
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        named = [MIDDLE if tap == 0.5 else str(tap) for tap in taps]
        super().__init__(model, schedule, prediction, named, gradient_checkpointing)
        # All layers run in `encode`, so no pass would notice such a tap by itself; and its rows may
        # have been dropped.
        if beyond := [tap for tap in self.taps if tap.startswith(DECODER)]:
            raise ValueError(
                f"the encoder ends before the layer {beyond[0]!r}; tap one of its own, e.g. "
                "mid_block"
            )

    def check_size(self, height: int, width: int) -> None:
        """Any size will do: an odd map is halved, rounded up, and doubled to what it was."""

    def blocks(self) -> list[nn.Module]:
        """Its residual and its transformer blocks: whole levels would take long to compile."""
        return [layer for layer in self.model.modules() if type(layer).__name__ in REPEATED]

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shape of a row of its text, by key."""
        return {"text": (length, self.model.config["cross_attention_dim"])}

    def arguments(self, cond: Cond) -> dict[str, Any]:
        """The network's own names for a condition."""
        return {"encoder_hidden_states": cond["text"].to(self.dtype)}

    def output(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The network's output [B, C, H, W]."""
        (output,) = self.model(x, told, **self.arguments(cond), return_dict=False)
        return output

    @property
    def decoder_start(self) -> nn.Module:
        """The first block that goes up."""
        first: nn.Module = self.model.up_blocks[0]
        return first

    @contextmanager
    def narrowed(self, batch: int, num: int | None) -> Iterator[None]:
        """A block in which the decoder sees the last `num` of `batch` rows alone; None is all."""
        # Of an up block's inputs also the skip activations and the embeddings are sliced, wherever
        # they lie in tuples and dictionaries. Inputs that have `num` rows already stay as they are.
        blocks: Sequence[nn.Module] = [] if num is None else self.model.up_blocks

        def narrow(_module: nn.Module, *entering: Any) -> Any:
            return tree_map_only(Tensor, partial(last, num=num), entering)

        hooks = [block.register_forward_pre_hook(narrow, with_kwargs=True) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class UNetXL(UNet):
    """SDXL's: it also reads pooled text, cond["pooled"] [B, P], and sizes and crops,
    cond["time_ids"] [B, 6].
    """

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes of a row of its condition, by key."""
        config = self.model.config
        # Its embedding takes the pooled text and the embedded sizes side by side.
        sizes = NUM_SIZES * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - sizes
        return super().shapes(length) | {"pooled": (pooled,), "time_ids": (NUM_SIZES,)}

    def arguments(self, cond: Cond) -> dict[str, Any]:
        """The network's own names for a condition."""
        # Sizes stay float32 until the network has embedded them: bfloat16 makes 1024 of 1023.
        added = {"text_embeds": cond["pooled"].to(self.dtype), "time_ids": cond["time_ids"]}
        return super().arguments(cond) | {"added_cond_kwargs": added}
