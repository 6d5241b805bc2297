"""The table of checks: what is looked at, what it means for distillation, and what to try."""

from dataclasses import dataclass

from dmd2.evaluation.health.rules import Above, Absent, All, Below, Either, Fell, Rose, Rule


@dataclass(frozen=True)
class Check:
    """A named question about a run: the rule that answers it, why it matters, what to try.

    Once it has found something, `lasting` says whether that is still so; None: the rule does.
    """

    name: str
    rule: Rule
    reason: str
    remedy: str
    lasting: Rule | None = None

    def __str__(self) -> str:
        """What it looks at, in words."""
        return f"{self.rule}{f'; lasts while {self.lasting}' if self.lasting else ''}"


CHECKS = (
    Check(
        "not_finite",
        Rose("train/skipped_updates"),
        "updates were skipped, their loss or gradient was not finite",
        "a lower learning rate, float32 or bfloat16 in place of float16",
    ),
    Check(
        "data_too_small",
        Below("watch/batches_per_epoch", 4, over=1),
        "the data are only a few batches, which the discriminator learns by heart",
        "more images, a smaller global_batch, or loss=no_gan",
    ),
    Check(
        "classes_missing",
        Above("watch/missing_classes", 0, over=1),
        "the teacher knows classes of which the data have no image, so the GAN forbids them",
        "images of all classes, or a teacher of those that there are",
    ),
    Check(
        "labels_disagree",
        All(
            (
                Above("watch/condition_share", 0.2, over=2),
                Below("watch/data_condition_share", 0.05, over=1),
            )
        ),
        "samples differ by class, and the data's images do not: their labels are not the teacher's",
        "labels in the order of the teacher's classes",
    ),
    Check(
        "guidance_missing",
        Below("watch/guidance", 1.001, over=1),
        "the text teacher's score is not guided, or guided away from the text",
        "teacher.guidance above 1, e.g. the scale at which the teacher's own samples are good",
    ),
    Check(
        "null_unknown",
        Above("watch/null_error", 1.01, over=1),
        "the teacher denoises worse under its unconditional twin than under the other one (zeros "
        "or an empty text), so guidance leads away from what it never learnt",
        "teacher.conditioner.twin=empty or zeros: the other one",
    ),
    Check(
        "teacher_bad",
        Above("watch/teacher_to_start", 0.25, over=1),
        "the teacher's many steps are hardly better than its first few: it has learnt little",
        "train the teacher for longer, other guidance, or more steps of its solver",
    ),
    Check(
        "inputs_not_simulated",
        Above("watch/input_gap", 0.1, over=1),
        "later steps are trained on inputs that sampling never makes, e.g. noised real images",
        "sampler=four_step (backward simulation), with the times and steps of this one",
    ),
    Check(
        "average_too_coarse",
        Above("watch/average_in_float16", 0.9, over=1),
        "the average (EMA) holds numbers of float16, in which its small steps round to none",
        "averages in float32, whatever the precision of the weights",
    ),
    Check(
        "generator_lr_too_high",
        Above("generator/update_to_weights", 0.025, over=3),
        "an update moves the generator's weights by a fortieth of their norm",
        "optimizer.generator.lr smaller by 10 or more",
    ),
    Check(
        "critic_lr_too_high",
        Above("critic/update_to_weights", 0.025, over=3),
        "an update moves the critic's weights by a fortieth of their norm",
        "optimizer.critic.lr smaller by 10 or more",
    ),
    Check(
        "critic_frozen",
        Below("critic/update_to_weights", 1e-9),
        "the critic's weights do not move, so its score is the teacher's and nothing pulls",
        "optimizer.critic.lr above 0",
    ),
    Check(
        "normaliser_at_floor",
        Above("generator/floor_share", 0.5),
        "the weight of most samples is the floor's and not DMD's, so noise levels are not balanced",
        "loss.generator.dm.floor below the usual distance of a sample to the teacher's prediction",
    ),
    Check(
        "gan_too_strong",
        Above("generator/gan_to_dm", 3),
        "the GAN's gradient at the samples rules that of distribution matching",
        "loss.generator.gan.weight smaller, until generator/gan_to_dm is .15 to .5",
    ),
    Check(
        "gan_won",
        All((Above("critic/accuracy_real", 0.97), Above("critic/accuracy_fake", 0.97))),
        "the discriminator tells all samples from data: it has won, and its gradient fades",
        "loss.critic.gan.weight or optimizer.critic.lr smaller, or more data",
    ),
    Check(
        "critic_slow",
        Below("watch/critic_pace", 0.9),
        "the critic's weights move less than the generator's, which it has to follow (TTUR)",
        "critic_updates=5 or more, optimizer.critic.lr larger, optimizer.generator.lr smaller",
    ),
    Check(
        "critic_lags",
        # Beside pairs there is one critic update a generator update by design, and the critic lags.
        All((Above("generator/critic_to_teacher_error", 1.3), Absent("watch/regression"))),
        "the critic denoises the samples worse than the teacher, so it does not know them",
        "critic_updates=5 or more, optimizer.critic.lr larger, optimizer.generator.lr smaller",
    ),
    Check(
        "gan_too_weak",
        Below("generator/gan_to_dm", 0.0002),
        "the GAN's gradient at the samples is next to nothing, and its passes are wasted",
        "loss.generator.gan.weight larger, until generator/gan_to_dm is .15 to .5",
    ),
    Check(
        "critic_collapsed",
        Below("generator/score_cosine", 0.0),
        "real and fake score point apart: the critic's predictions have lost the samples",
        "optimizer.critic.lr smaller, and start anew: a critic does not come back",
    ),
    Check(
        "gradients_clipped",
        Above("generator/clipped", 0.9, over=10),
        "nearly every gradient of the generator is clipped, so updates keep only a direction",
        "max_grad_norm larger, or the loss weights smaller",
    ),
    Check(
        "generator_collapsing",
        Either(
            (
                All((Below("watch/spread", 0.6, over=2), Fell("watch/spread", 0.65))),
                # One that was collapsed at its first report has not fallen since.
                All((Below("watch/spread", 0.4), Above("watch/progress", 0.5, over=1))),
            )
        ),
        "samples of one condition become, or stay, far more alike than the data's",
        "optimizer.generator.lr smaller, critic_updates larger, a GAN or regression term",
        lasting=Below("watch/spread", 0.6, over=2),
    ),
    Check(
        "condition_ignored",
        All(
            (
                Below("watch/condition_share", 0.02, over=2),
                Above("watch/data_condition_share", 0.1, over=1),
            )
        ),
        "samples hardly depend on the condition, and the data do",
        "see that data, teacher and conditioner number their classes alike; more guidance",
    ),
    Check(
        "drifting",
        Above("watch/mean_shift", 0.8, over=2),
        "a channel's mean has left the data's by most of its standard deviation",
        "optimizer.generator.lr smaller, critic_updates larger, a GAN term",
    ),
    Check(
        "over_saturated",
        Above("watch/std_ratio", 1.35, over=2),
        "a channel's values spread far more than the data's",
        "teacher.guidance smaller, optimizer.generator.lr smaller, a GAN term",
    ),
    Check(
        "memorising",
        Above("watch/near_copies", 0.3, over=2),
        "many samples are near copies of training images",
        "more data, a smaller loss.generator.gan.weight, or an earlier checkpoint",
    ),
    Check(
        "hardly_better",
        All(
            (
                Above("watch/progress", 0.5, over=1),
                Above("watch/score_to_start", 0.5, over=1),
                Above("watch/score_to_teacher", 2, over=1),
            )
        ),
        "half the run is over, and the student is not twice as good as the untrained one",
        "what other checks name; critic_updates larger, optimizer.generator.lr smaller",
    ),
    Check(
        "getting_worse",
        All((Above("watch/score_to_best", 1.5, over=1), Above("watch/since_best", 2, over=1))),
        "three scores in a row did not reach the best, and the last is far from it",
        "stop here and take the best checkpoint, which summary.json names",
    ),
)
"""In the order in which several that are found at once are said: causes before what follows."""
BY_NAME = {check.name: check for check in CHECKS}
