"""How a generator is scored, as conf/metric/*.yaml says it; what does it is in `scoring`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from dmd2.diffusion.solvers import Heun, Solver
from dmd2.evaluation.real_images import RealImages
from dmd2.evaluation.samples import Dtype, RandomClassSampleSet, SampleSet
from dmd2.evaluation.scores import SampleCounts
from dmd2.metrics.suite import MetricSuite

Baseline = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Train samples, their labels and a number to as many samples and labels."""
SAMPLE_SETS = {"balanced": SampleSet, "random": RandomClassSampleSet}


@dataclass(frozen=True)
class ScoringProtocol:
    """One suite of metrics on one set of samples, and what its scores are compared with.

    suite          Detectors and metrics.
    num_samples    Samples a score. Rising numbers score the first so many of one set and name the
                   number: [10000, 50000] gives fid_10k and fid_50k from one pass.
    batch_size     Samples at once, always the same ones: any number of ranks gives the same score
                   to the last digit. Another batch size may change how a network rounds, and
                   nothing else.
    teacher_steps  Step counts at which the teacher is scored.
    primary        The metric to judge by; lower is better.
    num_reference  Real samples of each split that the suite is fitted to; None takes all.
    baselines      Simple generators fitted to the train split, by name.
    solver         Steps to what samples the teacher.
    seed           Of the samples' noise, the same for every run so that scores compare.
    classes        Of the samples: "balanced", in turn (DMD2's protocol), or "random" (EDM's).
    dtype          Of the networks that make samples: "float32", or "bfloat16" under autocast, which
                   is faster on a GPU and another set of samples. Detectors are float32 in both.
    captions       Text to image (COCO's protocol): sample i is made of caption i of this table,
                   which must be as long as there are samples.
    samples_per_caption
                   How many samples share a caption, e.g. for diversity within one: the first
                   num_samples / samples_per_caption captions come in turn, of the largest
                   num_samples where there are several.
    real           Real images by the detector that sees them, in place of the data's train split.

    Raises ValueError where values do not go together.
    """

    suite: MetricSuite
    num_samples: int | Sequence[int]
    batch_size: int
    teacher_steps: Sequence[int]
    primary: str
    num_reference: int | None
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    solver: Callable[[int], Solver] = Heun
    seed: int = 0
    classes: Literal["balanced", "random"] = "balanced"
    dtype: Dtype = "float32"
    captions: Sequence[str] | None = None
    samples_per_caption: int = 1
    real: Mapping[str, RealImages] | None = None

    def __post_init__(self) -> None:
        if self.classes not in SAMPLE_SETS:
            raise ValueError(
                f"metric.classes must be {' or '.join(SAMPLE_SETS)}, got {self.classes}"
            )
        if self.batch_size < 1 or any(num < 1 for num in self.teacher_steps):
            raise ValueError(
                "metric.batch_size and each of metric.teacher_steps must be at least 1, got "
                f"{self.batch_size} and {list(self.teacher_steps)}"
            )
        metrics = self.suite.metrics.values()
        known = sorted(metric.prefix + name for metric in metrics for name in metric.reports)
        if all(metric.reports for metric in metrics) and known and self.primary not in known:
            raise ValueError(
                f"metric.primary is {self.primary}, but the metrics are {', '.join(known)}"
            )
        if self.samples_per_caption < 1:
            raise ValueError(
                f"metric.samples_per_caption must be at least 1, got {self.samples_per_caption}"
            )
        if self.captions is None and self.samples_per_caption > 1:
            raise ValueError(
                "metric.samples_per_caption is of captions that a metric has of its own; type "
                "metric=coco_diversity, or leave it out"
            )
        # Reading the counts also checks them.
        num = self.counts.numbers[-1]
        if self.captions is not None and len(self.captions) < self.num_captions:
            each = self.samples_per_caption
            of_each = f", {each} of each" if each > 1 else ""
            raise ValueError(
                f"metric.num_samples={num}{of_each}, and metric.captions are {len(self.captions)}; "
                "name a longer file"
            )

    @property
    def counts(self) -> SampleCounts:
        """The numbers of samples, and how scores are called by them."""
        return SampleCounts(self.num_samples)

    @property
    def num_captions(self) -> int:
        """Of how many captions samples are made."""
        return -(-self.counts.numbers[-1] // self.samples_per_caption)

    @property
    def primary_score(self) -> str:
        """The score to judge by: at the first number of samples, which is scored most often."""
        return self.counts.name(self.primary, self.counts.numbers[0])
