"""Text to image in any dialect: a v-prediction and a flow teacher are the same code with other rows
of YAML.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dmd2.config.folder import config_folder
from dmd2.losses.functional import denoising
from dmd2.nets.discriminator import discriminator_on
from dmd2.randomness import seeded
from dmd2.runs.build import build

pytest.importorskip("diffusers", reason="diffusers is not installed: make install EXTRAS=dev,text")
pytest.importorskip(
    "transformers", reason="transformers is not installed: make install EXTRAS=dev,text"
)


@pytest.mark.parametrize("teacher", ["text_digits", "text_digits_v", "text_digits_flow"])
def test_every_dialect_learns_to_denoise(
    teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        overrides = ["experiment=text2digits_dmd2", f"teacher={teacher}", f"paths.cache={tmp_path}"]
        composed = compose("train", overrides=overrides)
    section: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)["teacher"]
    with seeded(0, "network"):
        denoiser = build(section["denoiser"])
        conditioner = build(section["conditioner"])
        cond = conditioner(torch.arange(8))
        x0, noise = torch.rand(8, 1, 8, 8) * 2 - 1, torch.randn(8, 1, 8, 8)
        head = discriminator_on(
            denoiser,
            build(section["head"]),
            (1, 8, 8),
            conditioner(torch.zeros(1, dtype=torch.long)),
        )
    t = torch.linspace(0.2, 0.6, 8)
    x_t = denoiser.schedule.add_noise(x0, noise, t)
    weight = build(section["weighting"])(*denoiser.schedule.alpha_sigma(t))
    optimizer, losses = torch.optim.Adam(denoiser.parameters(), 3e-3), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = denoising(denoiser(x_t, t, cond), x0, weight)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert head(denoiser.features(x_t, t, cond)).shape == (8, 1)
