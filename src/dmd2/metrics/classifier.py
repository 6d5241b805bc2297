"""A small classifier trained on the train split: features for a Fréchet distance, logits for
accuracy.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmd2.io.files import locked
from dmd2.io.tensors import load_weights, save_weights
from dmd2.metrics.detectors import Detector, as_floats
from dmd2.randomness import generator

WIDTH = 64  # of the penultimate features


class Classifier(Detector):
    """Penultimate features [B, 64] of a small convolutional net, trained once and kept in the
    folder `cache`.

    The file's name is a hash of the settings and of the data, so another split or setting trains
    anew. Under
    several processes let one fit first: the others then read its file.
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
        self.trunk = nn.Sequential()
        self.head = nn.Linear(WIDTH, num_classes)

    def fit(self, samples: Tensor, labels: Tensor) -> None:
        """Load the weights for this train split, or train and save them; on the device of this
        module.

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
        if not path.exists():
            with locked(path):  # all ranks and runs measure with the same one
                if not path.exists():
                    with torch.autocast(samples.device.type, enabled=False), torch.enable_grad():
                        self._train(samples, labels)
                    save_weights(self, path)
        load_weights(self, path)
        self.requires_grad_(False).eval()

    def features(self, samples: Tensor) -> Tensor:
        return self.trunk(as_floats(samples))

    def logits(self, samples: Tensor) -> Tensor:
        """Class logits [B, num_classes] of images uint8 [B, C, H, W]."""
        return self.head(self.trunk(as_floats(samples)))

    def _initialise(self, in_channels: int) -> None:
        num = self.channels
        self.trunk = nn.Sequential(
            *(nn.Conv2d(in_channels, num, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(num, 2 * num, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2 * num, 2 * num, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * num, WIDTH), nn.ReLU()),
        )
        draws = generator(self.seed, "classifier weights")
        for layer in [*self.trunk, self.head]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=draws)
                nn.init.zeros_(layer.bias)

    def _train(self, samples: Tensor, labels: Tensor) -> None:
        num_batches = -(-len(samples) // self.batch_size)
        parameters = [parameter.requires_grad_() for parameter in self.parameters()]
        optimizer = torch.optim.Adam(parameters, self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.num_epochs * num_batches
        )
        for epoch in range(self.num_epochs):
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
        digest = hashlib.sha256(repr((settings, tuple(samples.shape))).encode())
        for tensor in (samples, labels):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class ClassifierLogits(Classifier):
    """The same classifier, from the same file, whose features are its logits [B, num_classes]."""

    def features(self, samples: Tensor) -> Tensor:
        return self.logits(samples)
