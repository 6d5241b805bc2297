"""A small convolutional classifier, trained on the real train split and cached on disk.

Its penultimate features are for a Fréchet distance, its logits for class accuracy.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.io.hashed_tensors import cached
from dmd2.metrics.detectors import Detector, as_floats
from dmd2.randomness import generator

# Of the penultimate features.
WIDTH = 64


class Classifier(Detector):
    """Penultimate features [B, 64] of a small convolutional net, trained once.

    num_classes        Labels are below it.
    cache              Folder of its weights. A file's name is a hash of settings and data, so
                       another split or setting is trained anew.
    num_epochs, batch_size, lr, channels, seed
                       Of the training, and of the network's width.

    Processes that fit at the same time wait for the first, and read its file.
    """

    def __init__(
        self,
        num_classes: int,
        cache: str | Path,
        num_epochs: int = 10,
        batch_size: int = 64,
        lr: float = 2e-3,
        channels: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_epochs, self.batch_size = num_classes, num_epochs, batch_size
        self.lr, self.channels, self.seed = lr, channels, seed
        self.cache = Path(cache)
        # Filled by fit(), which knows the images' channels.
        self.trunk = nn.Sequential()
        self.head = nn.Linear(WIDTH, num_classes)

    def fit(self, samples: Tensor, labels: Tensor) -> None:
        """Load the weights for this train split, or train and save them, on this module's device.

        Raises ValueError if a label is not below `num_classes`.
        """
        if int(labels.max()) >= self.num_classes:
            raise ValueError(
                f"the classifier has {self.num_classes} classes but there is a label "
                f"{int(labels.max())}; "
                f"set num_classes={int(labels.max()) + 1}"
            )
        device = self.head.weight.device
        self._initialise(samples.shape[1])
        self.to(device)
        samples, labels = samples.to(device), labels.to(device)
        path = self.cache / f"classifier-{self._key(samples, labels)}.safetensors"
        # All ranks and runs measure with the same weights, whichever comes first; the process that
        # trained reads, too, what all others read.
        self.load_state_dict(cached(path, lambda: self._trained(samples, labels)))
        self.requires_grad_(False).eval()  # _train set requires_grad

    def features(self, samples: Tensor) -> Tensor:
        """Penultimate features [B, 64] of images uint8 [B, C, H, W]."""
        features: Tensor = self.trunk(as_floats(samples))
        return features

    def logits(self, samples: Tensor) -> Tensor:
        """Class logits [B, num_classes] of images uint8 [B, C, H, W]."""
        logits: Tensor = self.head(self.trunk(as_floats(samples)))
        return logits

    def _initialise(self, in_channels: int) -> None:
        num = self.channels
        self.trunk = nn.Sequential(
            # Pooled to 2x2 at the end, so that images of any size fit.
            *(nn.Conv2d(in_channels, num, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(num, 2 * num, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2 * num, 2 * num, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * num, WIDTH), nn.ReLU()),
        )
        # Again, of the seed alone: the layers' constructors drew from the global generator.
        draws = generator(self.seed, "classifier weights")
        for layer in [*self.trunk, self.head]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=draws)
                nn.init.zeros_(layer.bias)

    def _trained(self, samples: Tensor, labels: Tensor) -> dict[str, Tensor]:
        # Called inside an evaluation, which has no gradients and may have autocast.
        with torch.autocast(samples.device.type, enabled=False), torch.enable_grad():
            self._train(samples, labels)
        return self.state_dict()

    def _train(self, samples: Tensor, labels: Tensor) -> None:
        num_batches = -(-len(samples) // self.batch_size)  # rounded up
        parameters = [parameter.requires_grad_() for parameter in self.parameters()]
        optimizer = torch.optim.Adam(parameters, self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.num_epochs * num_batches
        )
        for epoch in range(self.num_epochs):
            # Drawn on the CPU: a device's generator would give another order, and other weights.
            order = torch.randperm(
                len(samples), generator=generator(self.seed, epoch, "classifier order")
            )
            for rows in order.to(samples.device).split(self.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(self.logits(samples[rows]), labels[rows]).backward()
                optimizer.step()
                schedule.step()

    def _key(self, samples: Tensor, labels: Tensor) -> str:
        settings = (
            self.num_classes,
            self.num_epochs,
            self.batch_size,
            self.lr,
            self.channels,
            self.seed,
        )
        # Tensors enter by their bytes: two subsets of one data set must not share a file.
        digest = hashlib.sha256(repr((settings, tuple(samples.shape))).encode())
        for tensor in (samples, labels):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class ClassifierLogits(Classifier):
    """The same classifier, from the same file, whose features are its logits [B, num_classes]."""

    def features(self, samples: Tensor) -> Tensor:
        """Class logits [B, num_classes] of images uint8 [B, C, H, W]."""
        return self.logits(samples)
