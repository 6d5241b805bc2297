"""Conditions that are encoded before samples are made."""

import pytest
import torch
from torch import Tensor

from dmd2.diffusion.conditioning import Cond, Conditioner
from dmd2.evaluation.encoded_ahead import EncodedAhead
from dmd2.evaluation.samples import GeneratorSampling, SampleSet


class Noting(Conditioner):
    """Two numbers a label, and a list of what happened."""

    num_classes = 6

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("text", torch.arange(12.0).view(6, 2))
        self.done: list[str] = []

    def forward(self, labels: Tensor) -> Cond:
        self.done.append("encoded")
        return {"text": self.get_buffer("text")[labels]}

    def null(self, cond: Cond) -> Cond:
        return {"text": torch.full_like(cond["text"], -1.0)}


def test_batches_are_encoded_as_they_are_and_before_the_first_pass():
    conditioner, cpu = Noting(), torch.device("cpu")
    samples, blocks = SampleSet((2,), 6, 0), [range(0, 4), range(4, 8)]

    class Network:
        def sample(self, generator: None, noises: list[Tensor], cond: Cond) -> Tensor:
            conditioner.done.append("pass")
            return cond["text"]

        times = (1.0,)

    known = EncodedAhead(conditioner, map(samples.labels, blocks), cpu)
    sampling = GeneratorSampling(None, known, Network())
    for block in blocks:
        x0, labels = samples.make(sampling, block)
        assert torch.equal(x0, conditioner.get_buffer("text")[labels])
    assert conditioner.done == ["encoded", "encoded", "pass", "pass"]
    assert known.num_classes == 6 and not list(known.parameters()) and not list(known.buffers())
    cond = known(samples.labels(blocks[0]))
    assert torch.equal(known.null(cond)["text"], torch.full((4, 2), -1.0))
    with pytest.raises(KeyError):
        known(torch.tensor([0]))
