"""Transformers of diffusers as denoisers: what all families share. `nets.families` has each one's
own inputs.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from dmd2.diffusion.denoiser import Prediction, last
from dmd2.diffusion.schedules import NoiseSchedule
from dmd2.nets.checkpointing import Checkpointing, checkpointed
from dmd2.nets.diffusers_net import DecoderReached, DiffusersNet, Tap


class Transformer(DiffusersNet):
    """A transformer over the tokens of x_t [B, C, H, W]: square patches, row by row.

    taps  Layers whose tokens are the features, by name or by depth, as maps [B, D, h, w].

    Other arguments are those of `DiffusersNet`. Raises ValueError for a depth outside [0, 1].
    """

    folder = "transformer"
    # Of attention and of the layers behind it, by the names that the families have for them. None
    # may be the end of a name at the network's own ends, as proj_out or linear is.
    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"),
        *("to_add_out", "to_qkv_mlp_proj", "proj_mlp", "ff.net.0.proj", "ff.net.2"),
        *("ff_context.net.0.proj", "ff_context.net.2", "ff.linear_in", "ff.linear_out"),
        *("ff_context.linear_in", "ff_context.linear_out", "img_mlp.net.0.proj", "img_mlp.net.2"),
        *("txt_mlp.net.0.proj", "txt_mlp.net.2", "feed_forward.w1", "feed_forward.w2"),
        *("feed_forward.w3", "ff.conv_inverted", "ff.conv_point"),
    )
    stacks: tuple[str, ...] = ("transformer_blocks",)
    """The lists of blocks, in the order in which they run."""
    final = "norm_out"
    """The first layer behind the blocks. It and those behind it are small."""
    shared: tuple[str, ...] = ("image_rotary_emb",)
    """Inputs of blocks that have no batch axis."""
    text_width = "joint_attention_dim"
    """What its config calls the width of the text that it reads."""

    def __init__(
        self,
        model: Any,
        schedule: NoiseSchedule,
        prediction: Prediction = "flow",
        taps: Sequence[Tap] = (),
        gradient_checkpointing: Checkpointing = False,
    ) -> None:
        names = [f"{stack}.{i}" for stack in self.stacks for i in range(len(getattr(model, stack)))]
        if wrong := [tap for tap in taps if not isinstance(tap, str) and not 0 <= tap <= 1]:
            raise ValueError(f"a tap is a layer's name or a depth from 0 to 1, got {wrong[0]}")
        # Of 57 blocks the one half-way is number 28, counted from 0 over all stacks.
        named = [
            tap if isinstance(tap, str) else names[min(int(tap * len(names)), len(names) - 1)]
            for tap in taps
        ]
        super().__init__(model, schedule, prediction, named, gradient_checkpointing)
        tapped = [i for i, name in enumerate(names) for tap in named if is_within(tap, name)]
        self.behind_taps = names[max(tapped, default=-1) + 1 :]
        # Of the present pass: blocks that see fewer rows, and how many. A tuple, so that they are
        # no submodules twice.
        self.narrow_blocks: tuple[nn.Module, ...] = ()
        self.num_kept = 0

    @staticmethod
    def patch_of(config: Mapping[str, Any]) -> int:
        """Height and width of a token in pixels of x_t, of a network with this config."""
        return config["patch_size"]

    def most_tokens(self) -> float:
        """Rows, and columns, of tokens that the network has places for; here any number."""
        return math.inf

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes of a row of its condition; a mask, whether it is read or not."""
        config = self.model.config
        pooled = config.get("pooled_projection_dim")
        found: dict[str, tuple[int, ...]] = {
            "text": (length, config[self.text_width]),
            "mask": (length,),
        }
        return found if pooled is None else found | {"pooled": (pooled,)}

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError where height or width are no whole tokens, or more than have places."""
        patch, most = self.patch_of(self.model.config), self.most_tokens()
        if height % patch or width % patch:
            raise ValueError(
                f"the network's tokens are {patch} x {patch} pixels of the latents, and these are "
                f"{height} x {width}"
            )
        if max(height, width) > most * patch:
            raise ValueError(
                f"the network has places for {most} x {most} tokens, and these are "
                f"{height // patch} x {width // patch}"
            )

    def maps(self, features: list[Tensor], x: Tensor) -> list[Tensor]:
        """Features as maps [B, D, h, w] of the image's tokens alone."""
        patch = self.patch_of(self.model.config)
        height, width = (size // patch for size in x.shape[-2:])
        return [
            self.image_tokens(feature, height * width).mT.unflatten(-1, (height, width))
            for feature in features
        ]

    def image_tokens(self, feature: Any, num: int) -> Tensor:
        """The image's `num` tokens [B, num, D] of what a layer gave."""
        # Blocks of two streams give a pair (text, image), those of one stream both in a row.
        tokens = feature[-1] if isinstance(feature, tuple) else feature
        return tokens[:, tokens.shape[1] - num :]

    @property
    def decoder_start(self) -> nn.Module:
        """The block behind the last tap, or the first layer behind the blocks."""
        start: nn.Module = self.model.get_submodule((*self.behind_taps, self.final)[0])
        return start

    @contextmanager
    def narrowed(self, batch: int, num: int | None) -> Iterator[None]:
        """A block in which the blocks behind the last tap see the last `num` of `batch` rows alone;
        None is all. The small layers behind them see zeros in the place of the other rows.
        """

        def widen(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            tokens, *others = args
            dropped = tokens.new_zeros(batch - len(tokens), *tokens.shape[1:])
            return torch.cat([dropped, tokens]), *others

        hooks: list[RemovableHandle] = []
        if num is not None and self.behind_taps:
            self.num_kept = num
            self.narrow_blocks = tuple(map(self.model.get_submodule, self.behind_taps))
            for block in self.narrow_blocks:
                hooks.append(block.register_forward_pre_hook(self.entering, with_kwargs=True))
            final = self.model.get_submodule(self.final)
            hooks.append(final.register_forward_pre_hook(widen))
        try:
            yield
        finally:
            self.narrow_blocks = ()
            for hook in hooks:
                hook.remove()

    def entering(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """What a block of this pass reads, by name, in place of what it was given."""
        given = inspect.signature(block.forward).bind(*args, **kwargs).arguments
        keep = partial(last, num=self.num_kept)
        if block not in self.narrow_blocks:
            return (), given
        # Inputs that have `num` rows already stay as they are.
        return (), {
            name: value if name in self.shared else tree_map_only(Tensor, keep, value)
            for name, value in given.items()
        }

    def run_block(self, block: nn.Module, *args: Any) -> Any:
        """A block's result with gradient checkpointing, as diffusers calls it."""
        if block in self.ends_before:
            raise DecoderReached  # here, since `checkpoint` does not end well by an exception
        # Then this pass's hooks are gone: what they do to inputs is done before.
        _, given = self.entering(block, args, {})
        return checkpointed(block, self.gradient_checkpointing, **given)


def is_within(name: str, block: str) -> bool:
    """Whether a layer of this name is a block, or a part of it."""
    return f"{name}.".startswith(f"{block}.")
