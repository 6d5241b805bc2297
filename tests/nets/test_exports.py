"""What `dmd2.nets` and `dmd2.nets.text` export, and that importing them loads nothing optional."""

import subprocess
import sys
from types import ModuleType

import pytest

from dmd2 import nets
from dmd2.nets import adm, autoencoder, critic, discriminator, lora, song, text, toy, unet
from dmd2.nets.text import clip, prompts, tiny

HEAVY = ("diffusers", "transformers", "peft", "torchvision", "huggingface_hub", "accelerate")


@pytest.mark.parametrize("package", [nets, text], ids=lambda package: package.__name__)
def test_all_names_are_there_and_sorted(package: ModuleType):
    # As ruff sorts them: constants, then classes, then functions.
    kinds = [0 if name.isupper() else 1 if name[0].isupper() else 2 for name in package.__all__]
    assert package.__all__ == [name for _, name in sorted(zip(kinds, package.__all__, strict=True))]
    assert all(hasattr(package, name) for name in package.__all__)


def test_exports_are_the_modules_own():
    assert nets.UNet is unet.UNet, "diffusers' wrapper, not the base of EDM's families"
    assert nets.DhariwalUNet is adm.DhariwalUNet and nets.SongUNet is song.SongUNet
    assert nets.Critic is critic.Critic and nets.ConvHead is discriminator.ConvHead
    assert nets.MLP is toy.MLP and nets.VAE is autoencoder.VAE and nets.adapted is lora.adapted
    assert text.Prompts is prompts.Prompts and text.CLIP is clip.CLIP
    assert text.tiny_clip is tiny.tiny_clip


def test_the_import_loads_no_optional_library():
    code = f"""
import sys
import dmd2.nets, dmd2.nets.text
print(*(name for name in {HEAVY} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
