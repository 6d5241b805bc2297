"""Tunes an experiment's teacher to its data by LoRA, and writes the LoRA as diffusers reads it.

usage: python experiments/style_lora/tune.py FILE.safetensors lora=generator KEY=VALUE ...

The keys are those of `dmd2 train`: `data` is the style, `teacher.weights` the file of the teacher,
`lora.generator` has the rank and the layers, and `teacher.pretrain` says how long it is trained and
at which learning rate.
"""

import os
import sys
from pathlib import Path

from hydra import initialize_config_dir
from torch import Tensor

from dmd2.config.check import Config, of_train
from dmd2.config.folder import config_folder
from dmd2.io.tensors import save_tensors
from dmd2.nets.lora import products
from dmd2.runs.build import build, build_data, build_trainer
from dmd2.runs.teacher import build_teacher, pretraining_node, teacher_file
from dmd2.training.callbacks.progress import Progress


def tuned(config: Config) -> dict[str, Tensor]:
    """LoRA's factors by their names in diffusers' network, trained as the teacher itself was."""
    teacher = build_teacher(config, build_data(config["data"]), teacher_file(config))
    teacher.load_or_train()
    network = build(config["lora"]["generator"])(teacher.denoiser)
    section = config["teacher"]["pretrain"]
    module = build(section["module"], denoiser=network, conditioner=teacher.conditioner)
    bar = Progress("style", section["max_iterations"], {"pretrain/loss": "loss"})
    trainer = build_trainer(config, section["max_iterations"], [bar], logger=False)
    trainer.fit(module, datamodule=build_data(pretraining_node(config)))
    return products(network.model)


if __name__ == "__main__":
    out, *overrides = sys.argv[1:]
    os.environ.setdefault("DMD2_RUN_ID", "style")  # what the paths of a run are made of
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = of_train(overrides)
    factors = tuned(config)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_tensors(
        {f"unet.{name}": x.detach().contiguous() for name, x in factors.items()}, Path(out)
    )
    print(f"{out}: LoRA of {len(factors) // 2} layers")
