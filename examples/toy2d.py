"""A ring of eight Gaussians, distilled to one step: `python examples/toy2d.py`, under a minute.

The teacher is exact, no Hydra is involved, and every part is a constructor call.
"""

import copy
from functools import partial

import lightning
import torch

import dmd2
from dmd2.data import Toy2D
from dmd2.losses.weighting import edm
from dmd2.nets import MLP, GaussianMixture

torch.set_num_threads(1)  # for networks this small, threads cost more than they save
torch.manual_seed(0)
data = Toy2D("ring", batch_size=256, seed=0)
schedule = dmd2.Karras(sigma_min=0.01, sigma_max=10.0)
modes, std = torch.from_numpy(data.modes).float(), data.mode_std
teacher = GaussianMixture(schedule, modes, torch.full((8,), std), torch.full((8,), 1 / 8))

generator = dmd2.EDM(MLP(width=64), schedule, sigma_data=1.0)
critic = dmd2.Critic(copy.deepcopy(generator), discriminator=None)  # the fake score
objective = dmd2.Objective(
    views={"generator": dmd2.UniformRows(0.02, 0.98), "critic": dmd2.UniformRows()},
    generator={"dm": dmd2.DistributionMatching(view="generator", floor=0.1)},
    critic={"denoising": dmd2.Denoising(partial(edm, sigma_data=1.0), view="critic")},
)
adamw = partial(torch.optim.AdamW, lr=2e-3, fused=True)
dmd = dmd2.DMD(
    dmd2.Models(teacher, critic, dmd2.Unconditional()),
    generator,
    objective,
    sampler := dmd2.FewStepSampler([1.0]),
    shape=(2,),
    optimizers={"generator": adamw, "critic": adamw},
    lr_factor=lambda iteration: 1 - iteration / 2000,
)
trainer = lightning.Trainer(
    accelerator="cpu",
    max_steps=2000,
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
)
trainer.fit(dmd, datamodule=data)

points = sampler.sample(generator, [torch.randn(2000, 2)], {}).detach()
distance, nearest = torch.cdist(points, modes).min(1)
on_a_mode = distance < 3 * std
print(f"{on_a_mode.float().mean():.0%} of the points are within 3 std of a mode")
print(f"{len(nearest[on_a_mode].unique())} of {len(modes)} modes are reached")
