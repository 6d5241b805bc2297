"""What is made of a teacher and data once, and cached: noise-image pairs, reference scores."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.data.pairs import PairWriter
from dmd2.distributed.process_group import broadcast_from_rank_zero
from dmd2.distributed.rank_zero import on_rank_zero, warn
from dmd2.evaluation.references import data_references, teacher_references
from dmd2.evaluation.samples import SampleSet, TeacherSampling
from dmd2.evaluation.scores import References
from dmd2.evaluation.scoring import Evaluator
from dmd2.io.files import key_of, read_hashed_json, write_hashed_json
from dmd2.io.progress import progress_bar
from dmd2.runs.build import build, device_for
from dmd2.runs.teacher import Teacher


def make_pairs(config: Config, teacher: Teacher, data: DataModule) -> Path:
    """DMD's noise-image pairs of this teacher, made once by all ranks; the folder of them.

    After a kill the work goes on where it was.
    """
    section, folder = config["pairs"], pairs_folder(config, teacher, data)
    key, num = pairs_key(config, teacher, data), section["num_pairs"]
    writer = PairWriter(folder, num, data.shape, section["dtype"], key, section["at_once"])
    device, solver = device_for(config), build(section["solver"])
    # As the distillation guides it: pairs teach what the teacher does under guidance.
    sampling = TeacherSampling(teacher.denoiser, teacher.conditioner, solver, teacher.guidance)
    teacher.denoiser.to(device)
    teacher.conditioner.to(device)
    # Seed 1: pairs must not be the samples that scores are made of, which have seed 0.
    samples = SampleSet(data.shape, teacher.conditioner.num_classes, 1, device)
    with progress_bar("pairs", num, initial=writer.num_written(), unit="pair") as bar:
        for rows in writer.free():
            writer.write(rows, *samples.pairs(sampling, rows))
            if not bar.disable:  # counting reads the whole folder
                bar.update(writer.num_written() - bar.n)
    writer.finish()
    return folder


def pairs_key(config: Config, teacher: Teacher, data: DataModule) -> str:
    """The key of all that a pair depends on."""
    captions = data.identity().get("captions")  # which text a label stands for
    return key_of(teacher.key, captions, config["pairs"]["solver"], config["pairs"]["dtype"])


def pairs_folder(config: Config, teacher: Teacher, data: DataModule) -> Path:
    """Where the pairs of this teacher are, or will be."""
    key, num = pairs_key(config, teacher, data), config["pairs"]["num_pairs"]
    return Path(config["paths"]["cache"]) / "pairs" / f"{key}-{num}"


def cached_data_references(config: Config, evaluator: Evaluator) -> References:
    """The scores to compare with that need no teacher; kept under the data's and metric's key."""
    path = data_references_path(config, evaluator)
    make = partial(data_references, evaluator, device_for(config))
    return _cached("real samples and baselines", path, make)


def cached_teacher_references(config: Config, evaluator: Evaluator, teacher: Teacher) -> References:
    """The teacher's scores, also as the student samples.

    They are kept under the key of the teacher, the data, the metric and the sampler.
    """
    path = teacher_references_path(config, evaluator, teacher)
    make = partial(teacher_references, evaluator, teacher.denoiser, teacher.guidance)
    return _cached("the teacher", path, make)


def data_references_path(config: Config, evaluator: Evaluator) -> Path:
    """Where the scores that need no teacher are kept."""
    return _path(config, config["metric"], evaluator.data.fingerprint())


def teacher_references_path(config: Config, evaluator: Evaluator, teacher: Teacher) -> Path:
    """Where the teacher's scores are kept."""
    data = evaluator.data.fingerprint()
    return _path(config, teacher.key, data, config["metric"], config["sampler"])


def _path(config: Config, *made_of: Any) -> Path:
    return Path(config["paths"]["cache"]) / "references" / f"{key_of(*made_of)}.json"


def _cached(name: str, path: Path, make: Callable[[], References]) -> References:
    """References called `name` from the cache, or made by all ranks and kept there by rank 0."""
    # Rank 0 reads for all: another rank may see the file a moment later.
    found = broadcast_from_rank_zero(partial(_read_references, path))
    if found is None:
        print(f"scoring {name} to compare with, once; kept in {path.parent}")
        found = make()
        on_rank_zero(partial(write_hashed_json, path, found))
    return found


def _read_references(path: Path) -> References | None:
    """Cached references; None where there are none, or the file is damaged."""
    try:
        return read_hashed_json(path) if path.exists() else None
    except ValueError as error:
        warn(f"{error}; these scores are made again")
        return None
