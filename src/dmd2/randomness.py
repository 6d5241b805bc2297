"""Stateless random numbers: every draw is a function of (seed, iteration, stream, row).

No draw depends on a generator's history. So a resumed run draws what an uninterrupted one would,
ranks draw different rows, and two ranks of batch size B draw what one rank of batch size 2 B draws.
The rows of the whole batch are cut into blocks, each with a seed of its own, and a rank draws the
blocks that hold its rows.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

BLOCK = 2**17
"""Numbers of a block: a generator is seeded for each, and at most two are drawn in part in vain."""


def seed_of(*key: int | str) -> int:
    """A hash of `key`, in [0, 2^63)."""
    # Not Python's hash(), which differs between processes. Shifted: a seed is a signed int64.
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A generator on the host, seeded by a hash of `key`.

    >>> first = torch.rand(1, generator=generator(0, 100, "noise"))
    >>> bool(first == torch.rand(1, generator=generator(0, 100, "noise")))
    True
    """
    return torch.Generator().manual_seed(seed_of(*key))


def normal_rows(rows: Sequence[int], shape: tuple[int, ...], *key: int | str) -> Tensor:
    """N(0, I) noise [len(rows), *shape] for evaluation: row i depends on `key` and i alone."""
    # A generator a row is slow, but sample i has the same noise in any batch and on any rank.
    return torch.stack([torch.randn(shape, generator=generator(*key, i)) for i in rows])


@dataclass(frozen=True)
class Draws:
    """The random numbers of one iteration, on this rank; `stream` names what they are for.

    A row of the batch draws the same on any number of ranks.

    >>> one = Draws(seed=0, iteration=7).normal("noise", (4, 2))
    >>> second = Draws(seed=0, iteration=7, rank=1, world_size=2).normal("noise", (2, 2))
    >>> bool((one[2:] == second).all())
    True
    """

    seed: int
    iteration: int
    rank: int = 0
    world_size: int = 1
    # A CUDA generator gives other numbers than the CPU's: digits compare on one kind of device.
    device: torch.device | str = "cpu"

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of this rank's shape [B, ...]."""
        return self._rows(stream, shape, torch.randn)

    def uniform(self, stream: str, num: int) -> Tensor:
        """Uniform numbers in [0, 1) of this rank's rows, [num]."""
        return self._rows(stream, (num,), torch.rand)

    def integers(self, stream: str, low: int, high: int, num: int) -> Tensor:
        """Integers in [low, high) of this rank's rows, [num]."""
        return self._rows(stream, (num,), partial(torch.randint, low, high))

    def labels(self, num_classes: int, num: int) -> Tensor:
        """Labels of this rank's rows, int64 [num], on the host: tables of captions are there."""
        return replace(self, device="cpu").integers("label", 0, max(num_classes, 1), num)

    def step(self, num_steps: int) -> int:
        """One integer in [0, num_steps), the same on all ranks, drawn on the host."""
        # A hash is random itself. The host reads no device here, and need not wait.
        # The stream keeps its first name: under another one the same seed would draw other steps.
        return seed_of(self.seed, self.iteration, "rung") % num_steps

    def _rows(self, stream: str, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
        """This rank's rows of what `draw` makes of a shape, a generator and a device."""
        num, total = shape[0], shape[0] * self.world_size
        per_block = max(BLOCK // math.prod(shape[1:]), 1)
        first = self.rank * num
        # The rank is no part of the key: it only chooses blocks. Seeds are far apart, being hashes,
        # so those after one are free for its blocks.
        seed = seed_of(self.seed, self.iteration, stream)
        own = range(first // per_block, (first + num - 1) // per_block + 1)
        blocks = [
            # A block is drawn whole: how many numbers are asked for decides what they are.
            draw(
                (min(per_block, total - i * per_block), *shape[1:]),
                generator=torch.Generator(self.device).manual_seed(seed + i),
                device=self.device,
            )
            for i in own
        ]
        return torch.cat(blocks).narrow(0, first - own.start * per_block, num)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global generator for a block, e.g. for initial weights, and restore it after.

    >>> with seeded(0, "weights"):
    ...     layer = torch.nn.Linear(2, 1)
    """
    # The CPU's generator only: networks are initialised there.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        yield
