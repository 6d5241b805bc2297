"""How far the samples of each class are from the real images of that class."""

import torch
from torch import Tensor

from dmd2.metrics.diversity import LabelledFeatures


class ClassDistance(LabelledFeatures):
    """Squared distance of a class's mean features to its real images', as "class_distance".

    It is in percent of the variance of the class's real images, the mean over classes; of class 3
    alone "3/class_distance". Of real data it is about 0, and may be below: what differs by chance
    is taken off. A class that became another one has some hundred, which no distance of all samples
    together shows.
    """

    reports = ("class_distance",)
    reads_real = True

    def set_labels(self, train: Tensor) -> None:
        """Take the real images' classes [N]."""
        self.real_labels = train

    def set_reference(self, train: Tensor, test: Tensor) -> None:
        """Take mean [D] and variance [] of each class's real images, with what chance adds."""
        super().set_reference(train, test)
        found = {int(i): train[self.real_labels == i].double() for i in self.real_labels.unique()}
        known = {i: moments(x) for i, x in found.items() if len(x) > 1}
        # Copies of one image have no variance to measure by.
        self.real = {i: real for i, real in known.items() if real[1] > 0}

    def compute(self) -> dict[str, Tensor]:
        """Percentages, nothing where no class has two samples and two real images."""
        found = {}
        for i, x in self.by_label().items():
            if i in self.real:
                mean, variance, chance = (part.to(x.device) for part in self.real[i])
                own, _, own_chance = moments(x)
                square = (own - mean).square().sum() - chance - own_chance
                found[f"{i}/class_distance"] = 100 * square / variance
        if not found:
            return {}
        return {"class_distance": torch.stack(list(found.values())).mean(), **found}


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of features x [N, D]: mean [D], summed variance [], and the expected square of the error of
    the mean [], which is that variance / N.
    """
    variance = x.var(0).sum()
    return x.mean(0), variance, variance / len(x)
