"""Baselines that a generator has to beat: a Gaussian in pixels for each class."""

import torch
from torch import Tensor

from dmd2.randomness import generator


def class_gaussian(train: Tensor, labels: Tensor, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`num` samples of Gaussians fitted to the pixels of each class, with full covariance.

    Takes images uint8 [N, C, H, W] and labels [N]. Returns images uint8 [num, C, H, W] and labels
    [num], which go through the classes in turn.
    """
    classes = labels.unique()
    # In turn, so that any number of samples is balanced.
    asked = classes[torch.arange(num, device=labels.device) % len(classes)]
    samples = torch.empty(num, *train.shape[1:], dtype=torch.uint8, device=train.device)
    for label in classes.tolist():
        images = train[labels == label].double().flatten(1)
        mean = images.mean(0)
        rows = asked == label
        # A generator a class: one class's images do not depend on how many others there are.
        draws = torch.randn(
            int(rows.sum()),
            len(images),
            generator=generator(seed, label, "class gaussian"),
            dtype=images.dtype,
        ).to(train.device)
        # z (X - mean) / sqrt(N - 1) with z ~ N(0, I_N) has exactly the sample covariance of X, and
        # there is no D x D matrix to factorise.
        pixels = mean + draws @ (images - mean) / (len(images) - 1) ** 0.5
        samples[rows] = pixels.round().clamp(0, 255).byte().unflatten(1, train.shape[1:])
    return samples, asked
