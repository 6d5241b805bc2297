"""Full training from weights in bfloat16: student and critic are kept in float32, where updates
add up that bfloat16 would round away.
"""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmd2.cli.main import main
from families import save_family

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")

NUM, LR = 8, 1e-6


def trained(source: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of "student" and "critic" after a run, by their names in the pipeline's file."""
    sys.argv = [
        *("dmd2", "train", "experiment=sd15_dmd2", "teacher=pipeline", f"teacher.source={source}"),
        *("teacher.autoencoder.resolution=16", "teacher.dtype=bfloat16", "lora=none"),
        *("+trainer.precision=bf16-mixed", "trainer=cpu", "metric=none", "ema=[]"),
        *("data.captions.source=captions.txt", "global_batch=2", "critic_updates=1"),
        *(f"max_iterations={NUM}", "callbacks.samples=null", "optimizer.lr_factor.warmup=0"),
        *(f"optimizer.generator.lr={LR}", f"optimizer.critic.lr={LR}", "paths.run=run"),
    ]
    main()
    found = {}
    for part in ("student", "critic"):
        state = load_file(f"run/checkpoints/{part}.safetensors")
        found[part] = {key.rpartition("model.")[2]: value for key, value in state.items()}
    return found


def test_updates_below_the_resolution_of_bfloat16_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    Path("captions.txt").write_text("a red dot\na dot")
    file = save_family(tmp_path / "sd3", "sd3") / "transformer/diffusion_pytorch_model.safetensors"
    base = {key: value.bfloat16() for key, value in load_file(file).items()}
    save_file(base, file, {"format": "pt"})
    for part, state in trained(tmp_path / "sd3").items():
        assert {state[key].dtype for key in base} == {torch.float32}
        moved = [key for key in base if not torch.equal(state[key], base[key].float())]
        assert len(moved) > 0.9 * len(base), part
        start, now = (
            torch.cat([weights[key].flatten().float() for key in moved])
            for weights in (base, state)
        )
        # Adam's updates are about `LR` each: here are several, which bfloat16 does not show.
        assert 2 * LR < (now - start).abs().mean() < NUM * LR, part
        assert (now.bfloat16() == start.bfloat16()).float().mean() > 0.9, part
