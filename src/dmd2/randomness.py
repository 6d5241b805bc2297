"""Stateless random numbers: every draw is a function of (seed, iteration, stream, row).

No draw depends on a generator's history. So a resumed run draws what an uninterrupted one would,
ranks draw different rows, and two ranks of batch size B draw what one rank of batch size 2 B draws:
each draws all rows of the batch and keeps its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by a hash of `key`.

    >>> first = torch.rand(1, generator=generator(0, 100, "noise"))
    >>> bool(first == torch.rand(1, generator=generator(0, 100, "noise")))
    True
    """
    # Not Python's hash(), which differs between processes. Shifted: a seed is a signed int64.
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


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
        # All ranks' rows are drawn, and this rank's kept: see the module's docstring.
        all_rows = (shape[0] * self.world_size, *shape[1:])
        return self._mine(torch.randn(all_rows, generator=self._of(stream), device=self.device))

    def uniform(self, stream: str, num: int) -> Tensor:
        """Uniform numbers in [0, 1) of this rank's rows, [num]."""
        return self._mine(
            torch.rand(num * self.world_size, generator=self._of(stream), device=self.device)
        )

    def integers(self, stream: str, low: int, high: int, num: int) -> Tensor:
        """Integers in [low, high) of this rank's rows, [num]."""
        return self._mine(
            torch.randint(
                low, high, (num * self.world_size,), generator=self._of(stream), device=self.device
            )
        )

    def labels(self, num_classes: int, num: int) -> Tensor:
        """Labels of this rank's rows, int64 [num], on the host: tables of captions are there."""
        return replace(self, device="cpu").integers("label", 0, max(num_classes, 1), num)

    def step(self, num_steps: int) -> int:
        """One integer in [0, num_steps), the same on all ranks, drawn on the host."""
        # The seed itself is random, being a hash. The host reads no device here, and need not wait.
        # The stream keeps its first name: under another one the same seed would draw other steps.
        return generator(self.seed, self.iteration, "rung").initial_seed() % num_steps

    # The rank is no part of the key: it only chooses rows.
    def _of(self, stream: str) -> torch.Generator:
        return generator(self.seed, self.iteration, stream, device=self.device)

    def _mine(self, all_rows: Tensor) -> Tensor:
        return all_rows.chunk(self.world_size)[self.rank]


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global generator for a block, e.g. for initial weights, and restore it after.

    >>> with seeded(0, "weights"):
    ...     layer = torch.nn.Linear(2, 1)
    """
    # The CPU's generator only: networks are initialised there.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield
