"""Pickles in EDM's published format, made of the recorded reference networks."""

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    """What the published files call; it would execute `module_src`."""
    raise AssertionError("a pickle was run")


class EasyDict(dict):
    """EDM's dictionary."""


class Persistent(nn.Module):
    """A module that is pickled as EDM's are: source code, class name and attributes."""

    def __init__(self, class_name: str, **arguments: Any) -> None:
        super().__init__()
        self.class_name, self._init_args, self._init_kwargs = class_name, (), arguments

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "class_name"}
        meta = {"type": "class", "version": 6, "module_src": "raise AssertionError", "state": state}
        return _reconstruct_persistent_obj, (meta | {"class_name": self.class_name},)


def persistent(state: dict[str, Tensor], config: dict[str, Any]) -> Persistent:
    """An EDMPrecond of these tensors."""
    inner = {
        name: value for name, value in config.items() if name not in ("img_channels", "model_type")
    }
    inner |= {"in_channels": config["img_channels"], "out_channels": config["img_channels"]}
    root = Persistent("EDMPrecond", use_fp16=False, **config)
    root.sigma_data = np.float64(0.5)
    root.model = Persistent(config["model_type"], **inner)
    root.model.enc, root.model.dec = nn.ModuleDict(), nn.ModuleDict()
    for path, tensor in state.items():
        *parents, name = path.split(".")
        module: nn.Module = root
        for part in parents:
            if part not in module._modules:
                module.add_module(part, Persistent("Conv2d", kernel=3))
            module = module._modules[part]
        if name in ("resample_filter", "freqs"):
            module.register_buffer(name, tensor)
        else:
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return root


def dump(content: Any, path: Path) -> Path:
    """Pickle with the names of EDM's modules in place; they are gone when this returns."""
    modules = {
        name: ModuleType(name)
        for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore
    modules["dnnlib.util"].EasyDict = EasyDict  # type: ignore
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(
            _reconstruct_persistent_obj, "__module__", "torch_utils.persistence", raising=False
        )
        patch.setattr(EasyDict, "__module__", "dnnlib.util")
        path.write_bytes(pickle.dumps(content))
    return path


def recorded(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and constructor arguments of a reference network."""
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["config"])
