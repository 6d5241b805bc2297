"""Scores of a generator: a set of samples through a suite of metrics, fitted to real data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.distributed.device import device_of
from dmd2.distributed.process_group import rank_blocks
from dmd2.evaluation.encoded_ahead import NUM_AHEAD, EncodedAhead
from dmd2.evaluation.partial_sums import PartialSums
from dmd2.evaluation.protocol import SAMPLE_SETS, ScoringProtocol
from dmd2.evaluation.real_images import FolderStatistics, TrainSplit
from dmd2.evaluation.samples import (
    GeneratorSampling,
    SampleSet,
    Sampling,
    TeacherSampling,
    computed_in,
)
from dmd2.evaluation.scores import Scores
from dmd2.io.progress import progress_bar
from dmd2.metrics.suite import Batches, MetricSuite

AnySampling = TypeVar("AnySampling", GeneratorSampling, TeacherSampling, Sampling)


class RealReference(Protocol):
    """Real data that a suite compares samples with."""

    @property
    def data(self) -> DataModule | None:
        """The data whose splits it is; None where there are statistics of images alone."""
        ...

    def fit(self, suite: MetricSuite, device: torch.device) -> None:
        """Fit the suite, on `device`; raises ValueError where the data has no real samples."""
        ...


class Evaluator:
    """Scores generators by a protocol, as a run's sampler makes their samples.

    protocol     The suite, the numbers of samples, the metric to judge by.
    data         The run's data: how samples are shown, and, where the protocol names no real
                 images of its own, what they are compared with.
    conditioner  The run's; it reads the protocol's captions where there are some.
    sampler      The run's few-step sampler.
    """

    def __init__(
        self,
        protocol: ScoringProtocol,
        data: DataModule,
        conditioner: Conditioner,
        sampler: FewStepSampler,
    ) -> None:
        self.protocol, self.data, self.sampler = protocol, data, sampler
        self.suite, self.batch_size = protocol.suite, protocol.batch_size
        self.counts, self.primary = protocol.counts, protocol.primary_score
        captions = protocol.captions
        self.conditioner = (
            conditioner if captions is None else conditioner.of(captions[: protocol.num_captions])
        )
        self.real: RealReference = (
            TrainSplit(data, protocol.num_reference)
            if protocol.real is None
            else FolderStatistics(protocol.real)
        )
        self._fitted_on: torch.device | None = None

    def encoded(
        self, sampling: AnySampling, samples: SampleSet, blocks: Iterable[range]
    ) -> AnySampling:
        """The same sampling with the conditions of some blocks encoded now, on the samples'
        device; a text encoder that training keeps on the host is back there.
        """
        batches, device = map(samples.labels, blocks), torch.device(samples.device)
        return sampling.conditioned_by(EncodedAhead(self.conditioner, batches, device))

    def sample_set(self, device: torch.device | str) -> SampleSet:
        """The samples that everything here is scored on, and grids show."""
        # Made anew for each device; the samples are the same ones.
        kind = SAMPLE_SETS[self.protocol.classes]
        shape, num_classes = self.data.shape, self.conditioner.num_classes
        return kind(shape, num_classes, self.protocol.seed, device)

    def sampling(self, generator: Denoiser) -> GeneratorSampling:
        """How a generator is sampled: as the run's sampler does."""
        return GeneratorSampling(generator, self.conditioner, self.sampler)

    def made(self, sampling: Sampling, samples: SampleSet, rows: range) -> tuple[Tensor, Tensor]:
        """Samples x0 [len(rows), ...] in model space and their labels, in the protocol's dtype."""
        with self.in_dtype(torch.device(samples.device)):
            return samples.make(sampling, rows)

    def in_dtype(self, device: torch.device) -> torch.autocast:
        """A block in which networks make samples in the protocol's dtype."""
        return computed_in(self.protocol.dtype, device)

    def scores(
        self,
        generator: Denoiser,
        stop: Callable[[], bool] = lambda: False,
        num_counts: int | None = None,
        sums: PartialSums | None = None,
    ) -> Scores:
        """Scores of a generator.

        stop        Asked before every batch; raises InterruptedError as soon as it says True.
        num_counts  Score at the first so many of the numbers of samples; None is all of them.
        sums        Where partial sums are kept on disk; None keeps them nowhere.
        """
        numbers = self.counts.numbers[:num_counts]
        return self.scores_of(self.sampling(generator), generator, stop, numbers, sums)

    def scores_of(
        self,
        sampling: Sampling,
        network: nn.Module,
        stop: Callable[[], bool] = lambda: False,
        numbers: Sequence[int] | None = None,
        sums: PartialSums | None = None,
    ) -> Scores:
        """Scores of whatever `sampling` makes with `network`, on the network's device."""
        device = device_of(network)
        self.fit(device)
        samples, counts = self.sample_set(device), numbers or self.counts.numbers
        name = f"scoring the {sampling.name}, {sampling.num_evaluations} NFE"
        bar = progress_bar(name, counts[-1], unit=" samples")

        def batches(rows: range) -> Iterator[tuple[Tensor, Tensor]]:
            # A block goes through the network as one on any number of ranks: its rounding is the
            # same.
            blocks = rank_blocks(rows, self.batch_size)
            while ahead := list(islice(blocks, max(NUM_AHEAD // self.batch_size, 1))):
                encoded = self.encoded(sampling, samples, ahead)
                for block in ahead:
                    # Between batches, so that a signal ends a long score within one.
                    if stop():
                        raise InterruptedError("a score was asked to end early")
                    x0, labels = self.made(encoded, samples, block)
                    yield self.data.to_pixels(x0), self.data.class_of(labels)
                    bar.update(block.stop - bar.n)

        # A score must not depend on the precision that training happens to use.
        with bar, computed_in("float32", device):
            try:
                return self._nested(batches, counts, sums or PartialSums())
            finally:
                self.offload()

    def scores_of_set(self, samples: Tensor, labels: Tensor) -> Scores:
        """Scores of samples that are there, as pictures show them [N, ...], and labels [N]."""

        def batches(rows: range) -> Batches:
            own = (slice(block.start, block.stop) for block in rank_blocks(rows, self.batch_size))
            return ((samples[block], labels[block]) for block in own)

        return self._nested(batches, self.counts.numbers, PartialSums())

    def named(self, scores: Scores, num_samples: int) -> Scores:
        """Scores under the names that they have at this number of samples."""
        return {self.counts.name(metric, num_samples): value for metric, value in scores.items()}

    def fit(self, device: torch.device) -> None:
        """Fit the suite to real data on `device`, once.

        Raises ValueError where the protocol has no metrics or the data has no real samples.
        """
        if not self.suite.metrics:
            raise ValueError(
                "there are no metrics to score by (metric=none); type metric=NAME, of those in "
                "conf/metric, in dmd2 train or dmd2 evaluate"
            )
        # Fitting reads all real images, so it is done once a device.
        if self._fitted_on != device:
            with computed_in("float32", device):
                self.real.fit(self.suite, device)
            self._fitted_on = device
        self.suite.to(device)

    def offload(self) -> None:
        """Send what scores alone need to the host: detectors, metrics, the autoencoder."""
        self.suite.to("cpu")
        self.data.offload()

    def _nested(
        self, batches: Callable[[range], Batches], numbers: Sequence[int], sums: PartialSums
    ) -> Scores:
        """Scores of the first so many samples for each number, each sample made once."""
        self.suite.reset()
        found: Scores = {}
        start = 0
        # Each number adds to the samples before it: fid_50k contains fid_10k's.
        for num in numbers:
            sums.add(self.suite, batches, range(start, num), self.batch_size)
            found |= self.named(self.suite.compute(), num)
            start = num
        self.suite.reset()
        return found
