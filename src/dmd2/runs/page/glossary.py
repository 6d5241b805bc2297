"""What scores and logged numbers mean, in a sentence each, and which direction is better."""

import re
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a number is, and the better direction: "lower", "higher", or "" where none is."""

    text: str
    better: str = ""

    @property
    def arrow(self) -> str:
        """An arrow in the better direction; empty where there is none."""
        return {"lower": "↓", "higher": "↑"}.get(self.better, "")


SCORES = {
    "rfd": Meaning(
        "Fréchet distance between features of fixed random convolutions, in percent of the real "
        "features' variance",
        "lower",
    ),
    "fid": Meaning("Fréchet distance between features of Inception-v3", "lower"),
    "patch_fid": Meaning("FID of crops in full resolution: fine detail", "lower"),
    "fcd": Meaning("Fréchet distance between features of a classifier of this data", "lower"),
    "fd_dinov2": Meaning("Fréchet distance between features of DINOv2", "lower"),
    "kid": Meaning("kernel distance on the same features as the Fréchet distance", "lower"),
    "is": Meaning("inception score: samples are recognised, and are of many classes", "higher"),
    "clip": Meaning("mean cosine of CLIP's features of images and of their captions", "higher"),
    "pickscore": Meaning(
        "people's choice between images of a prompt, as a CLIP predicts it: cosine times about 100",
        "higher",
    ),
    "hpsv2": Meaning("as pickscore, of the CLIP of HPSv2.1: 100 times its cosine", "higher"),
    "image_reward": Meaning(
        "people's rating of an image for its prompt, as ImageReward predicts it: about -2 to 2",
        "higher",
    ),
    "precision": Meaning("share of samples inside the real data's manifold", "higher"),
    "recall": Meaning("share of real data inside the samples' manifold", "higher"),
    "accuracy": Meaning(
        "share of samples that a classifier takes for the class that was asked for", "higher"
    ),
    "diversity": Meaning(
        "root mean squared distance of two samples of one condition; the data's is the aim"
    ),
    "class_distance": Meaning(
        "squared distance of a class's mean to its real images', in percent of their variance: of "
        "real data about 0",
        "lower",
    ),
    "nearest_train": Meaning("mean distance of a sample to the nearest training image"),
    "near_copies": Meaning(
        "share of samples nearer to a training image than 5 % of held-out images are; far above "
        ".05 is memorising"
    ),
    "sliced_wasserstein": Meaning("distance to the data, in the data's own units", "lower"),
    "modes": Meaning("modes of the data that samples reach", "higher"),
    "high_quality": Meaning("share of samples that lie on a mode of the data", "higher"),
}
LOGGED = {
    r"\w+/loss_dm": "distribution matching (DMD Eq. 7), as a loss; its size says little by itself",
    r"generator/loss_gan": "non-saturating GAN loss; ln 2 = .69 where nobody can tell",
    r"critic/loss_gan": "the discriminator's loss; 2 ln 2 = 1.39 where it cannot tell",
    r"\w+/loss_regression": "regression to the teacher's ODE on noise-image pairs",
    r"\w+/loss_denoising": "the critic's denoising loss on the generator's samples",
    r"\w+/score_gap\w*": "mean absolute difference of real and fake score, by noise level t: what "
    "distribution matching still sees",
    r"\w+/loss_\w+": "the loss of the term of this name in conf/loss",
    r"\w+/num_scrubbed": "samples of a pass whose gradient was not finite, and was set to 0",
    r"\w+/num_guidance_scrubbed": "the same of the gradient of guidance alone",
    r"\w+/fisher": "mean squared difference of real and fake score, the Fisher divergence",
    r"\w+/sample_gradient_\w+": "norm of this term's gradient at the samples",
    r"\w+/\w+_to_dm": "gradient of this term at the samples, over that of distribution matching: "
    "how its weight is tuned",
    r"\w+/sample_(mean|std)": "of all entries of the generator's samples",
    r"generator/score_cosine": "cosine of the teacher's and the critic's correction of the samples",
    r"generator/critic_to_teacher_error": "denoising error of the critic on the samples over the "
    "teacher's; above 1 the critic lags behind",
    r"generator/floor_share": "share of samples whose weight is the floor's",
    r"\w+/update_to_weights": "norm of an update over that of the weights",
    r"\w+/clipped": "1 where the gradient was clipped",
    r"watch/spread": "spread of samples within a condition over the data's",
    r"watch/mean_shift": "greatest shift of a channel's mean, in standard deviations of the data",
    r"watch/std_ratio": "greatest standard deviation of a channel over the data's",
    r"watch/condition_share": "share of the samples' variance that the condition explains",
    r"watch/data_condition_share": "share of the data's variance that the class explains",
    r"watch/near_copies": "share of samples that are near copies of training images",
    r"watch/batches_per_epoch": "batches that the training data make",
    r"watch/missing_classes": "classes that the teacher knows and the data have no sample of",
    r"watch/guidance": "the scale of a text teacher's guidance",
    r"watch/null_error": "a text teacher's denoising error under its unconditional twin over that "
    "under the other one",
    r"watch/critic_pace": "how far the critic's weights move during one update of the generator's, "
    "over how far those move",
    r"watch/regression": "1 where regression on noise-image pairs holds the generator",
    r"watch/score_to_best": "the newest score over the best so far",
    r"watch/score_to_start": "the newest score over the untrained student's",
    r"watch/score_to_teacher": "the newest score over the teacher's best",
    r"watch/progress": "the share of the run that is over, from the generator's 100th update on",
    r"watch/since_best": "scores since the best one",
    r"watch/teacher_to_start": "the teacher's score over the worst of its own in fewer steps",
    r"watch/input_gap": "distance of the last step's training inputs to what sampling makes of the "
    "same noise, in standard deviations of the data",
    r"watch/average_in_float16": "share of an average's weights that float16 holds exactly",
    r"watch/\w+": "what a check of the run's health reads",
    r"health/\w+": "1 where this check finds something",
    r"\w+/gradient_norm": "norm of the whole gradient, before clipping",
    r"\w+/accuracy": "share of real data and of samples that the discriminator tells; .5 is chance",
    r"speed/images_per_second": "samples that the critic trained on; scores and pictures left out",
    r"speed/seconds_per_iteration": "mean over the run, scores and pictures left out",
    r"speed/peak_memory_bytes": "most memory so far, of the GPU or of this process",
    r"speed/images_seen": "samples that the critic has trained on",
    r"speed/checkpoint_share": "share of the time that saving takes",
    r"train/skipped_updates": "updates that were skipped for a number that is not finite",
}
"""Meanings of logged numbers, by a pattern of the whole name; the first that fits."""


def meaning_of_score(name: str) -> Meaning:
    """What a score is, e.g. "fid" or "fid_10k", of 10,000 samples."""
    metric, number = re.fullmatch(r"(.+?)(?:_(\d+k?))?", name).groups()  # type: ignore[union-attr]
    if name in SCORES or metric not in SCORES:
        return SCORES.get(name, Meaning(""))
    found = SCORES[metric]
    return Meaning(f"{found.text}; of {number} samples", found.better)


def meaning_of_logged(name: str) -> Meaning:
    """What a logged number is, e.g. "generator/loss_dm"."""
    found = (text for pattern, text in LOGGED.items() if re.fullmatch(pattern, name))
    return Meaning(next(found, ""))
