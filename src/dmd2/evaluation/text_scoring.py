"""Scores of text to image on captions that nobody trained on: COCO's protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dmd2.data.base import DataModule
from dmd2.diffusion.conditioning import Conditioner
from dmd2.diffusion.sampling import FewStepSampler
from dmd2.evaluation.real_images import RealImages
from dmd2.evaluation.samples import SampleSet
from dmd2.evaluation.scoring import References, Scoring


class TextScoring(Scoring):
    """Image i is made of caption i, and Fréchet distances are to real images in a folder.

    captions  The table, of at least as many as there are samples.
    real      Real images by the detector that sees them.

    Takes the arguments of `Scoring` besides; the data's own train split is not read.
    """

    real_by_label = False

    def __init__(
        self, captions: Sequence[str], real: Mapping[str, RealImages], **common: Any
    ) -> None:
        super().__init__(**common)
        if len(captions) < (num := self.sizes.numbers[-1]):
            raise ValueError(
                f"metric.num_samples={num}, and metric.captions are {len(captions)}; name a "
                "longer file"
            )
        self.captions, self.real = captions, real

    def attach(self, data: DataModule, conditioner: Conditioner, sampler: FewStepSampler) -> None:
        super().attach(data, conditioner.of(self.captions), sampler)

    def numbered(self, device: torch.device | str) -> SampleSet:
        """The numbered samples; their captions' encoder goes where they are made."""
        self.conditioner.to(device)
        return super().numbered(device)

    def real_references(self, device: torch.device) -> References:
        """None to show, but what samples are compared with is there afterwards."""
        self._fit(device)
        return {"floor": {}, "baselines": {}}

    def _fit(self, device: torch.device) -> None:
        if self.fitted_on != device:
            self.suite.to(device)
            for name, images in self.real.items():
                self.suite.set_moments(name, *images.moments(self.suite.detectors[name]))  # type: ignore[arg-type]
            self.fitted_on = device
