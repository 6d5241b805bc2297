"""What `dmd2.data` and its preparation export, and what importing them must not load."""

import importlib
import subprocess
import sys

import pytest

# Readers of one format, and what only networks and metrics use.
OPTIONAL = ("pyarrow", "lmdb", "zstandard", "diffusers", "transformers", "peft", "torchvision")
EXPORTED = {
    "dmd2.data": {"DataModule", "Digits", "Images", "Latents", "Prompts", "TextDigits", "Toy2D"},
    "dmd2.data.preparation": {"Decoder", "images", "latents"},
}


@pytest.mark.parametrize("name", EXPORTED)
def test_all_that_is_exported_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__) and EXPORTED[name] <= set(package.__all__)
    for exported in package.__all__:
        assert getattr(package, exported).__module__.startswith("dmd2.data.")


def test_importing_adds_no_optional_library() -> None:
    """Lightning loads some of them where they are installed; the package may load no others."""
    code = f"""
import sys, lightning
before = set(sys.modules)
import dmd2.data.preparation
print(sorted({set(OPTIONAL)!r} & (set(sys.modules) - before)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "[]\n", ended.stderr
