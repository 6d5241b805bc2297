"""Any JSON in place of a JSON file, or of a value in one, is one line or passed over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, strategies as st

from any_json import ANY_JSON
from dmd2.cli.errors import one_line
from dmd2.data.pairs import PairStore
from dmd2.data.preparation.folder import open_prepared
from dmd2.data.preparation.layout import lay_out
from dmd2.io.files import read_hashed_json
from dmd2.io.hub import weights_of
from dmd2.nets.pipeline import from_configs, pipeline_encoder, pipeline_vae
from dmd2.nets.pipeline_noise import noise_of
from dmd2.runs.groups import gather
from dmd2.training.checkpoints import newest, write
from dmd2.weights.architecture import check_architecture
from pipelines import save_pipeline

DEEP = b"[" * 100_000
SCHEDULER = "scheduler/scheduler_config.json"


def answered(read: Callable[[], Any]) -> None:
    """Read it, or be refused in a line that is for the user."""
    try:
        read()
    except (ValueError, OSError) as error:
        assert one_line(error) and len(str(error)) < 2000, error


OWN: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a hashed file": ("a.json", lambda folder: read_hashed_json(folder / "a.json")),
    "prepared data": ("manifest.json", open_prepared),
    "pairs": ("manifest.json", PairStore),
}


@pytest.mark.parametrize("what", OWN)
@given(content=ANY_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9))
@example(content=DEEP)
@example(content=b"{}")
@example(content=b'{"sha256_of_content": null}')
def test_in_place_of_what_we_wrote_it_is_refused_by_name(
    what: str, content: bytes, tmp_path: Path
) -> None:
    name, read = OWN[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        read(tmp_path)


@given(content=ANY_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9))
@example(content=DEEP)
@example(content=b"{}")
def test_in_place_of_a_checkpoint_s_manifest_the_one_before_is_taken(
    content: bytes, tmp_path: Path
) -> None:
    paths = tmp_path / "00000001.ckpt", tmp_path / "00000002.ckpt"
    for path in paths:
        if not path.exists():
            write({"x": torch.zeros(2)}, path, {"iteration": int(path.stem)})
    paths[1].with_suffix(".json").write_bytes(content)
    found = newest(tmp_path)
    assert found is not None and found.path == paths[0]


@given(content=ANY_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9))
@example(content=DEEP)
def test_in_place_of_a_summary_that_run_is_left_out(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    answered(lambda: gather(tmp_path))


@given(labels=ANY_JSON | st.lists(st.tuples(ANY_JSON, ANY_JSON), max_size=2))
def test_in_place_of_labels_it_is_one_line(labels: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for content in (labels, {"labels": labels}, {"labels": [["a.png", labels]]}):
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        answered(lambda: lay_out(tmp_path, 0.0))


@given(recorded=ANY_JSON | st.fixed_dictionaries({"model": ANY_JSON, "arguments": ANY_JSON}))
@example(recorded={"model": {"class": "UNet", "arguments": {}}, "arguments": []})
def test_in_place_of_an_architecture_it_is_one_line(recorded: Any) -> None:
    for text in (json.dumps(recorded), "[" * 100_000):
        with pytest.raises(ValueError, match=r"the architecture in a\.safetensors is damaged"):
            check_architecture(Path("a.safetensors"), {"architecture": text}, {}, torch.nn.Linear)


PARTS: dict[str, Callable[[str], Any]] = {
    SCHEDULER: noise_of,
    "unet/config.json": lambda f: (from_configs(f, ["mid_block"], False), pipeline_encoder(f)),
    "vae/config.json": lambda f: pipeline_vae(f).identity(),
    "text_encoder/config.json": pipeline_encoder,
    "text_encoder_2/config.json": pipeline_encoder,
    "unet/diffusion_pytorch_model.safetensors.index.json": lambda f: weights_of(f, None),
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return save_pipeline(tmp_path_factory.mktemp("pipeline"), "sdxl", shard="60KB")


@pytest.mark.parametrize("name", PARTS)
@given(data=st.data())
def test_in_a_pipeline_s_file_it_is_used_or_one_line(
    name: str, pipeline: Path, data: st.DataObject
) -> None:
    path = pipeline / name
    plain = path.read_text()
    content = json.loads(plain)
    key = data.draw(st.none() | st.sampled_from(sorted(content)))
    value = data.draw(ANY_JSON)
    try:
        path.write_text(json.dumps(value if key is None else content | {key: value}))
        answered(lambda: PARTS[name](str(pipeline)))
    finally:
        path.write_text(plain)
