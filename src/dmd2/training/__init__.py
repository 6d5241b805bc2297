"""Training: the LightningModules, checkpoints, strategies, and the callbacks that watch them."""

from dmd2.training.adamw_8bit import adamw_8bit
from dmd2.training.ema import EMA
from dmd2.training.lr_schedule import Constant, WarmupCosine
from dmd2.training.module import DMD
from dmd2.training.pretrain import Pretrain
from dmd2.training.strategies import ReplicatedStrategy, ShardedStrategy

__all__ = [
    "DMD",
    "EMA",
    "Constant",
    "Pretrain",
    "ReplicatedStrategy",
    "ShardedStrategy",
    "WarmupCosine",
    "adamw_8bit",
]
