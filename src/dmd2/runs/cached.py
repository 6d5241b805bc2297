"""What is derived from a teacher and data once, and kept in the cache: noise-image pairs, scores to
compare with.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dmd2.config.check import Config
from dmd2.data.base import DataModule
from dmd2.data.pairs import PairWriter
from dmd2.distributed.process_group import broadcast_from_rank_zero, rank
from dmd2.evaluation.samples import SampleSet, TeacherSampling
from dmd2.evaluation.scoring import References, Scoring
from dmd2.io.files import key_of, read_json, write_json
from dmd2.runs.build import Teacher, build, conditioner_of, device_for


def make_pairs(config: Config, teacher: Teacher, data: DataModule) -> Path:
    """DMD's noise-image pairs of this teacher, made once by all who ask; after a kill it goes on
    where it was.
    """
    section = config["pairs"]
    guidance, storage = config["teacher"]["guidance"], config["teacher"].get("dtype")
    captions = data.identity().get("captions")  # which labels number
    about = (teacher.key, conditioner_of(config["teacher"]), captions, guidance, storage)
    key = key_of(*about, section["solver"], section["dtype"])
    folder = Path(config["paths"]["cache"]) / "pairs" / f"{key}-{section['num_pairs']}"
    writer = PairWriter(
        folder, section["num_pairs"], data.shape, section["dtype"], key, section["at_once"]
    )
    maker = TeacherSampling(
        teacher.denoiser, teacher.conditioner, build(section["solver"]), guidance
    )
    device = device_for(config)
    teacher.denoiser.to(device)
    teacher.conditioner.to(device)
    numbered = SampleSet(data.shape, teacher.conditioner.num_classes, 1, device)
    start, silent = writer.num_written(), rank() > 0
    with tqdm(
        total=section["num_pairs"], initial=start, desc="pairs", unit="pair", disable=silent
    ) as bar:
        for rows in writer.free():
            writer.write(rows, *numbered.pairs(maker, rows))
            if not silent:  # it reads the whole folder
                bar.update(writer.num_written() - bar.n)
    writer.finish()
    return folder


def real_references(config: Config, scoring: Scoring) -> References:
    """The scores to compare with that need no teacher; kept under the data's and the metric's
    key.
    """
    key = key_of(config["metric"], scoring.data.fingerprint())
    return kept(config, key, partial(scoring.real_references, device_for(config)))


def teacher_references(config: Config, scoring: Scoring, teacher: Teacher) -> References:
    """The teacher's scores, also as the student samples; kept under its key, the metric's and the
    sampler's.
    """
    guidance, storage = config["teacher"]["guidance"], config["teacher"].get("dtype")
    about = (
        teacher.key,
        conditioner_of(config["teacher"]),
        guidance,
        storage,
        scoring.data.fingerprint(),
    )
    key = key_of(*about, config["teacher"].get("autoencoder"), config["metric"], config["sampler"])
    return kept(config, key, partial(scoring.teacher_references, teacher.denoiser, guidance))


def kept(config: Config, key: str, make: Callable[[], References]) -> References:
    """References from the cache, or made and kept there: they do not depend on the run."""
    path = Path(config["paths"]["cache"]) / "references" / f"{key}.json"
    if not broadcast_from_rank_zero(path.exists):
        print("scoring what to compare with, once")
        found = make()
        if rank() == 0:
            write_json(path, found)
        return found
    return read_json(path)
