"""What is said of a run that goes on with something else: in words, with what was and what is."""

import json
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dmd2.data import digits
from dmd2.data.base import DataModule
from dmd2.data.digits import Digits
from dmd2.data.images import Images
from dmd2.runs.pipeline_source import files_said
from dmd2.runs.resume import check_resumable, resume_identity
from dmd2.runs.teacher import identity_key

SECOND = 10**9
YEARS = 7305 * 86_400 * SECOND  # until 1990: a zip knows no time before 1980


def images(source: Path) -> Images:
    data = Images(source, 8, source.parent / "cache", batch_size=1, seed=0)
    data.prepare_data()
    return data


def kept(data: DataModule) -> dict:
    """What a checkpoint's manifest keeps of this data."""
    return json.loads(json.dumps(resume_identity({}, data.resume_identity(), 1)))


def refusal(before: dict, data: DataModule) -> str:
    now = resume_identity({}, data.resume_identity(), 1)
    check_resumable(before, now, ["dataset"])
    with pytest.raises(ValueError, match="of another run") as refused:
        check_resumable(before, now, [])
    return str(refused.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        (tmp_path / "pictures" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(path)
        os.utime(path, ns=(0, YEARS + i * SECOND))
    return tmp_path / "pictures"


def test_the_same_data_goes_on(folder: Path) -> None:
    for data in (images(folder), Digits(batch_size=1, seed=0)):
        check_resumable(kept(data), resume_identity({}, data.resume_identity(), 1), [])


def test_a_changed_file_is_named_with_its_time(folder: Path) -> None:
    before = kept(images(folder))
    Image.new("RGB", (8, 8)).save(folder / "a" / "2.png")
    os.utime(folder / "a" / "2.png", ns=(0, YEARS + 90 * SECOND + 5))
    said = refusal(before, images(folder))
    assert (
        "newest was b/3.png of 1990-01-01 00:00:03.000000000 UTC and is a/2.png of 1990-01-01 "
        "00:01:30.00" in said
    )
    assert "num_files" not in said and "source.path" not in said


def test_a_removed_file_is_counted(folder: Path) -> None:
    before = kept(images(folder))
    (folder / "a" / "0.png").unlink()
    said = refusal(before, images(folder))
    assert "dataset.source.num_files was 4 and is 3" in said and "newest" not in said


def test_a_file_in_another_folder_is_another_class(folder: Path) -> None:
    before = kept(images(folder))
    (folder / "a" / "0.png").rename(folder / "b" / "0.png")
    assert "dataset.source.names_sizes_times was" in refusal(before, images(folder))


def test_a_replaced_zip_is_named_with_its_size(folder: Path) -> None:
    def pack(names: str) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.write(folder / "ab"[int(name) % 2] / f"{name}.png", f"{name}.png")

    archive = folder.parent / "pictures.zip"
    pack("0123")
    before, size = kept(images(archive)), archive.stat().st_size
    pack("012")
    said = refusal(before, images(archive))
    assert f"dataset.source.num_bytes was {size} and is {archive.stat().st_size}" in said
    assert "newest was pictures.zip of" in said


def test_a_source_that_is_gone_is_named(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError, match=f"no data at {folder}"):
        images(folder).resume_identity()


def test_a_prepared_folder_is_known_by_its_hash(folder: Path) -> None:
    prepared = images(folder).folder
    before = kept(images(prepared))
    Image.new("RGB", (8, 8)).save(folder / "a" / "2.png")
    other = images(folder).folder
    assert "dataset.content was" in refusal(before, images(other))


def test_data_without_files_is_known_by_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Digits(batch_size=1, seed=0)
    before = kept(data)
    monkeypatch.setattr(digits, "NUM_TEST", 400)
    assert "dataset.num_test was 450 and is 400" in refusal(before, data)


def test_a_run_that_took_too_much_memory_goes_on_with_less() -> None:
    def identity(kept: bool, at_once: int) -> dict:
        denoiser, codec = {"gradient_checkpointing": kept}, {"at_once": at_once, "factor": 8}
        teacher = {"denoiser": denoiser, "autoencoder": codec}
        return resume_identity({"teacher": teacher, "memory": {"any": at_once}}, {}, 1)

    check_resumable(identity(False, 4), identity(True, 1), [])


def test_pairs_and_scores_are_the_same_in_less_memory() -> None:
    denoiser = {"_target_": "dmd2.nets.UNet", "gradient_checkpointing": False}
    edm = {"denoiser": {"model": {"gradient_checkpointing": False, "width": 8}}, "conditioner": {}}
    again = {"denoiser": {"model": {"gradient_checkpointing": True, "width": 8}}, "conditioner": {}}
    assert identity_key(edm, "weights") == identity_key(again, "weights")
    section = {"denoiser": denoiser, "conditioner": {}, "autoencoder": {"factor": 8, "at_once": 4}}
    less = section | {
        "denoiser": denoiser | {"gradient_checkpointing": "selective"},
        "autoencoder": {"factor": 8, "at_once": 1},
    }
    assert identity_key(section, "weights") == identity_key(less, "weights")
    assert identity_key(section | {"guidance": 2.0}, "weights") != identity_key(less, "weights")


def test_a_pipeline_whose_files_say_something_else_is_another_teacher(tmp_path: Path) -> None:
    """Where its scheduler was mended, pairs and scores are made again, and no run goes on."""
    file = tmp_path / "scheduler/scheduler_config.json"
    file.parent.mkdir()
    file.write_text('{"prediction_type": "epsilon"}')
    section = {"denoiser": {}, "conditioner": {}, "source": str(tmp_path)}
    key, before = identity_key(section, "weights"), files_said(str(tmp_path))
    # What people and programs lay beside its parts: notes, samples, a run of their own.
    for beside in ("README.md", "notes.txt", ".samples.json", "run/summary.json"):
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_text("{}")
    assert files_said(str(tmp_path)) == before
    # A checkpoint of a version that asked more of them is not refused for it.
    check_resumable({"pipeline": before | {"README.txt": "x"}}, {"pipeline": before}, [])
    assert identity_key(section, "weights") == key
    file.write_text('{"prediction_type": "v_prediction"}')
    assert identity_key(section, "weights") != key
    with pytest.raises(ValueError, match=r"pipeline\.scheduler/sched.* was .* and is"):
        check_resumable({"pipeline": before}, {"pipeline": files_said(str(tmp_path))}, [])
    check_resumable({}, {"pipeline": before}, [])  # a checkpoint of a version that did not ask


def test_of_many_keys_some_are_named_and_their_sections_allow_all() -> None:
    before = {"config": {"loss": {f"w{i}": i for i in range(9)}, "ema": [0.9]}}
    now = {"config": {"loss": {}, "ema": [0.5]}}
    with pytest.raises(ValueError, match="of another run: ema was") as refused:
        check_resumable(before, now, [])
    said = str(refused.value)
    assert said.count(" was ") == 5 and "and 5 keys more; for a run of its own type" in said
    assert said.endswith("if meant resume_allow=[ema,loss]")
    check_resumable(before, now, ["ema", "loss"])
