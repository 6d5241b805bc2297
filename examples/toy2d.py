"""Distil the exact denoiser of a ring of eight Gaussians into one step: python examples/toy2d.py

Half a minute on one core. No Hydra: every part is a constructor call.
"""

import copy
import functools

import lightning
import torch

import dmd2
from dmd2.data import Toy2D
from dmd2.losses import edm
from dmd2.nets import MLP, Critic, GaussianMixture

torch.manual_seed(0)
data = Toy2D("ring", batch_size=256, seed=0)
schedule = dmd2.Karras(sigma_min=0.01, sigma_max=10.0)
weights = torch.full((len(data.modes),), 1 / len(data.modes))
teacher = GaussianMixture(schedule, data.modes, torch.full_like(weights, data.mode_std), weights)
generator = dmd2.EDM(MLP(width=64), schedule, sigma_data=1.0)
models = dmd2.Models(teacher, Critic(copy.deepcopy(generator)), dmd2.Unconditional())
objective = dmd2.Objective(
    views={"dm": dmd2.UniformRows(0.02, 0.98), "critic": dmd2.UniformRows()},
    generator={"dm": dmd2.DistributionMatching(floor=0.1)},
    critic={"denoising": dmd2.Denoising(functools.partial(edm, sigma_data=1.0))},
)
adamw = functools.partial(torch.optim.AdamW, lr=2e-3, fused=True)
sampler = dmd2.FewStepSampler([1.0])
dmd = dmd2.DMD(
    models, generator, objective, sampler, (2,), {"generator": adamw, "critic": adamw}
)
trainer = lightning.Trainer(accelerator="cpu", max_steps=2000, logger=False, barebones=True)
trainer.fit(dmd, datamodule=data)

points = sampler.sample(generator, [torch.randn(2000, 2)], {}).detach()
distance = torch.cdist(points, data.modes).min(1).values
reached = torch.cdist(points, data.modes).argmin(1)[distance < 3 * data.mode_std].unique()
print(f"{len(reached)} of {len(data.modes)} modes reached")
