"""Reference networks, published as EDM's are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import EasyDict, Persistent, dump, persistent, recorded


@pytest.fixture(params=["adm_tiny", "ddpmpp_tiny", "ncsnpp_tiny"])
def name(request: pytest.FixtureRequest) -> str:
    """A reference network of EDM's."""
    return request.param


@pytest.fixture
def published(reference: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a reference network as EDM publishes it; keywords replace constructor arguments."""

    def write(name: str, **changed: Any) -> Path:
        state, config = recorded(reference / "edm" / f"{name}.safetensors")
        loss = Persistent("EDMLoss")
        loss.sigma_data, loss.means = np.float32(0.5), [np.int64(3), np.bool_(True)]
        content = {
            "ema": persistent(state, config | changed),
            "loss_fn": loss,
            "augment_pipe": None,
        }
        return dump(
            content | {"dataset_kwargs": EasyDict(path="images.zip", xflip=False)},
            tmp_path / f"edm-{name}.pkl",
        )

    return write
