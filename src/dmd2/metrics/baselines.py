"""Baselines that a generator has to beat."""

import torch
from torch import Tensor

from dmd2.randomness import generator


def class_gaussian(train: Tensor, labels: Tensor, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`num` class-balanced draws from each class's own full-covariance Gaussian in pixels.

    Takes images uint8 [N, C, H, W] and labels [N]; returns images uint8 [num, C, H, W] and labels
    [num], the
    classes in turn. A draw is the class's mean plus a random combination of its centred images:
    that has
    exactly the sample covariance, with no matrix to factorise.
    """
    classes = labels.unique()
    asked = classes[torch.arange(num, device=labels.device) % len(classes)]
    samples = torch.empty(num, *train.shape[1:], dtype=torch.uint8, device=train.device)
    for label in classes.tolist():
        images = train[labels == label].double().flatten(1)
        mean = images.mean(0)
        rows = asked == label
        draws = torch.randn(
            int(rows.sum()),
            len(images),
            generator=generator(seed, label, "class gaussian"),
            dtype=images.dtype,
        ).to(train.device)
        pixels = mean + draws @ (images - mean) / (len(images) - 1) ** 0.5
        samples[rows] = pixels.round().clamp(0, 255).byte().unflatten(1, train.shape[1:])
    return samples, asked
