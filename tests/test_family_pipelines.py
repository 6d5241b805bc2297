"""The small pipelines of `families.py` are whole: diffusers loads them and makes images."""

import numpy as np
import pytest

from families import FAMILIES, SIZES, save_family


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_pipeline_makes_a_finite_image_at_two_steps(tmp_path, name):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    folder = save_family(tmp_path / name, name)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 2_000_000
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 2, "output_type": "np"}
    if name == "dit":
        arguments |= {"class_labels": [3]}
    else:
        arguments |= {"prompt": "a red dot", "height": SIZES[name], "width": SIZES[name]}
    if name in ("sana", "pixart"):
        arguments |= {"use_resolution_binning": False, "clean_caption": False}
    (image,) = pipeline(**arguments, generator=torch.Generator().manual_seed(0)).images
    assert image.shape == (SIZES[name], SIZES[name], 3)
    assert np.isfinite(image).all() and image.std() > 0
