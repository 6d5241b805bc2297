"""What scores are read against: held-out real data, simple baselines, and the teacher."""

import torch

from dmd2.diffusion.denoiser import Denoiser
from dmd2.diffusion.guidance import Guidance
from dmd2.evaluation.samples import TeacherSampling
from dmd2.evaluation.scores import References, overall
from dmd2.evaluation.scoring import Evaluator


def data_references(evaluator: Evaluator, device: torch.device) -> References:
    """Scores that need no teacher: `floor` (held-out real data) and `baselines`.

    Both are empty where the real images are a folder's; the suite is fitted all the same. Raises
    ValueError where the primary metric is none of the suite's.
    """
    # Also without references to score: otherwise the first score would wait for it.
    evaluator.fit(device)
    protocol, data = evaluator.protocol, evaluator.real.data
    if data is None:
        evaluator.offload()
        return {"floor": {}, "baselines": {}}
    # Held-out samples are the best that a generator can do; they have not been trained on.
    num_held_out = len(evaluator.suite.test[1])
    floor = evaluator.suite.floor() if num_held_out else {}
    if floor and protocol.primary not in floor:
        raise ValueError(
            f"metric.primary is {protocol.primary}, but the metrics are "
            f"{', '.join(sorted(overall(floor)))}"
        )
    num = evaluator.counts.numbers[-1]
    baselines = {}
    for name, baseline in protocol.baselines.items():
        # Only here: all training images are read, and latents decoded.
        shown = torch.tensor(data.shown(data.train.x))
        classes = data.class_of(torch.tensor(data.train.labels))
        baselines[name] = evaluator.scores_of_set(*baseline(shown, classes, num))
    evaluator.offload()
    return {
        "floor": {"real": evaluator.named(floor, num_held_out)} if floor else {},
        "baselines": baselines,
    }


def teacher_references(
    evaluator: Evaluator, teacher: Denoiser, guidance: float | Guidance
) -> References:
    """Scores of the teacher by network evaluations, and `start`: where the student begins.

    `start` is the teacher sampled in the student's few steps. Both are empty where the protocol
    scores no teacher.
    """
    samplings = teacher_samplings(evaluator, teacher, guidance)
    scores = {str(s.num_evaluations): evaluator.scores_of(s, teacher) for s in samplings}
    # Where the student begins: what few steps cost before any distillation.
    start = {"untrained_student": evaluator.scores(teacher)} if samplings else {}
    return {"teacher": scores, "start": start}


def teacher_samplings(
    evaluator: Evaluator, teacher: Denoiser, guidance: float | Guidance
) -> list[TeacherSampling]:
    """How the teacher is sampled, at each of the protocol's step counts."""
    protocol = evaluator.protocol
    return [
        TeacherSampling(teacher, evaluator.conditioner, protocol.solver(num), guidance)
        for num in protocol.teacher_steps
    ]
