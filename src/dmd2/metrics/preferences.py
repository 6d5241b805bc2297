"""Scores that CLIPs learned from people's choices between images of one prompt: PickScore, HPSv2.

Both are a cosine of `ClipImages` and the prompt, scaled as their authors report it. Of an image
that is no square the centre is scored, where HPSv2's own script pads.
"""

from typing import Any

from dmd2.metrics.clip_score import ClipScore


class PickScore(ClipScore):
    """PickScore (Kirstain et al. 2023, arXiv:2305.01569), as "pickscore"; higher is better.

    The cosine times the temperature that the model learned, exp(logit_scale): as its model card
    computes it. `source` is yuvalkirstain/PickScore_v1, and nothing is put before a prompt. Takes
    the arguments of `ClipScore`.
    """

    reports = ("pickscore",)

    def scale_of(self, model: Any) -> float:
        """The model's temperature."""
        return float(model.logit_scale.exp())


class HPSv2(ClipScore):
    """Human preference score (Wu et al. 2023, arXiv:2306.09341), as "hpsv2"; higher is better.

    100 times the cosine, as their benchmark reports it. `source` is the folder that
    `hpsv2_folder` gives, and nothing is put before a prompt. Takes the arguments of `ClipScore`.
    """

    reports = ("hpsv2",)

    scale = 100.0  # the benchmark's, and not the model's temperature
