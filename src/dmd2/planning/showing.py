"""The memory of a sample grid and of a score beside all that training keeps."""

from collections import Counter

import lightning as L
import torch

from dmd2.benchmarks.meter import Meter
from dmd2.config.check import Config
from dmd2.evaluation.samples import computed_in
from dmd2.nets.autoencoder import VAE
from dmd2.planning.sizes import detector_bytes, with_encoding
from dmd2.training.module import DMD


class Showing(L.Callback):
    """Takes, at the end of training, the peaks of making samples and of decoding them, in `peaks`:
    "sample grid", and "score" where the run has one.

    vae  What decodes latents; None where samples are pixels.
    """

    def __init__(self, config: Config, meter: Meter, vae: VAE | None) -> None:
        self.config, self.meter, self.vae = config, meter, vae
        self.batch_size: int = config["metric"]["batch_size"]
        self.peaks: dict[str, Counter[str]] = {}
        self.nums: dict[str, int] = {}
        """Images that are decoded, one `at_once` after the other."""
        callbacks = config["callbacks"]
        if callbacks.get("samples") is not None:
            self.nums["sample grid"] = callbacks["samples"]["num_samples"]
        if callbacks.get("evaluation") is not None and config["metric"]["suite"]["metrics"]:
            self.nums["score"] = self.batch_size

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Optimizers and averages are still there, and no gradient is."""
        assert isinstance(module, DMD)
        for name, num in self.nums.items():
            self.meter.ledger.peak = Counter()
            # Detectors come first, and text encoders are back on the host before a pass begins.
            detectors = Counter({"detectors": detector_bytes(self.config) * (name == "score")})
            kept = self.meter.ledger.alive + detectors
            self.show(module, num)
            peak = self.meter.ledger.peak + detectors
            self.peaks[name] = with_encoding(self.config, peak, kept)

    @torch.no_grad()
    def show(self, module: DMD, num: int) -> None:
        """A pass of the generator, as grids and scores make one, and its images."""
        batch, shape = min(num, self.batch_size), module.shape
        cond = module.models.conditioner(torch.zeros(batch, dtype=torch.long))
        generator = next(iter(module.students().values()))
        with computed_in(self.config["metric"].get("dtype", "float32"), torch.device("cpu")):
            generator(torch.zeros(batch, *shape), torch.ones(batch), cond)
        if self.vae is not None:
            self.meter.ledger.own(self.vae.network.parameters(), "VAE")
            self.vae.decode(torch.zeros(num, *shape))
