"""Stateless randomness: every draw is a function of (seed, iteration, stream, row), never of a
generator's history.

Resume is then exact by construction, ranks differ by construction, and two ranks at batch B draw
what one rank at batch 2B draws: each draws the whole batch and keeps its own rows.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by a hash of `key`, e.g. `generator(seed, iteration, "noise")`."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def normal_rows(rows: Sequence[int], shape: tuple[int, ...], *key: int | str) -> Tensor:
    """N(0, I) noise [len(rows), *shape] where row i depends on `key` and i alone: for
    evaluation.
    """
    return torch.stack([torch.randn(shape, generator=generator(*key, i)) for i in rows])


@dataclass(frozen=True)
class Draws:
    """The random numbers of one iteration; a row of the batch draws the same on any number of
    ranks.
    """

    seed: int
    iteration: int
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of this rank's shape [B, ...]."""
        whole = (shape[0] * self.world_size, *shape[1:])
        return self._mine(torch.randn(whole, generator=self._of(stream), device=self.device))

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

    def step(self, num_steps: int) -> int:
        """One integer in [0, num_steps) that all ranks agree on, from the host: no device is
        read.
        """
        return generator(self.seed, self.iteration, "step").initial_seed() % num_steps

    def _of(self, stream: str) -> torch.Generator:
        return generator(self.seed, self.iteration, stream, device=self.device)

    def _mine(self, whole: Tensor) -> Tensor:
        return whole.chunk(self.world_size)[self.rank]


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global generator for a block, e.g. for a network's initial weights, and put it
    back after.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield
