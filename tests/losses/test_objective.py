"""What a loss file may say, and the errors when it says something else."""

from functools import partial

import pytest

from dmd2.diffusion.training_times import UniformRows
from dmd2.losses import divergences, functional as F, weighting
from dmd2.losses.distances import SquaredError
from dmd2.losses.objective import Objective
from dmd2.losses.terms import (
    ApproximateR1,
    Denoising,
    DistributionMatching,
    FDivergence,
    GANCritic,
    GANGenerator,
    Regression,
    RelativisticGANCritic,
    RelativisticGANGenerator,
    ScoreIdentity,
)

DM, GAN_G = DistributionMatching(view="g"), GANGenerator(1e-3, view="g")
FAKE, GAN_D = Denoising(weighting.x0, view="c"), GANCritic(1e-2, view="c")
VIEWS = {"g": UniformRows(), "c": UniformRows()}


def test_needs_are_those_of_the_terms_and_gan_views_those_of_the_discriminator():
    assert Objective(VIEWS, {"dm": DM}, {"fake": FAKE}).needs == set()
    whole = Objective(VIEWS, {"dm": DM, "gan": GAN_G}, {"fake": FAKE, "gan": GAN_D})
    assert whole.needs == {"discriminator", "real"} and whole.gan_views == {"g", "c"}
    own = Objective(
        {**VIEWS, "d": UniformRows()}, {"dm": DM}, {"fake": FAKE, "gan": GANCritic(1.0, view="d")}
    )
    assert own.gan_views == {"d"}
    paired = Objective(VIEWS, {"dm": DM, "r": Regression(0.25, SquaredError())}, {"fake": FAKE})
    assert paired.needs == {"pairs"} and paired.gan_views == set()


def test_passes_are_decoded_where_a_term_reads_x0():
    views = VIEWS | {"d": UniformRows(), "e": UniformRows()}
    apart = Objective(
        views,
        {"dm": DM, "gan": GANGenerator(1e-3, view="d")},
        {"fake": FAKE, "gan": GANCritic(1.0, view="e")},
    )
    assert apart.decoded == {("teacher", "g"), ("critic", "g"), ("critic", "c")}
    assert Objective(VIEWS, {"gan": GAN_G}, {"fake": FAKE, "gan": GAN_D}).decoded == {
        ("critic", "c")
    }


def test_a_view_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match=r"loss\.generator\.dm reads the view 'g', but loss\.views has c"
    ):
        Objective({"c": UniformRows()}, {"dm": DM}, {"fake": FAKE})


def test_a_view_that_nobody_reads_is_refused():
    with pytest.raises(ValueError, match=r"no term reads loss\.views\.idle"):
        Objective({**VIEWS, "idle": UniformRows()}, {"dm": DM}, {"fake": FAKE})


def test_a_generator_gan_needs_a_discriminator_that_learns():
    with pytest.raises(
        ValueError, match=r"loss\.generator\.gan reads the discriminator, and nothing trains it"
    ):
        Objective(VIEWS, {"gan": GAN_G}, {"fake": FAKE})
    with pytest.raises(
        ValueError, match=r"loss\.generator\.gan reads the discriminator, and nothing trains it"
    ):
        Objective(VIEWS, {"gan": GAN_G}, {"fake": FAKE, "r1": ApproximateR1(1.0, view="c")})
    with pytest.raises(ValueError, match=r"a GAN term of a weight above 0"):
        Objective(VIEWS, {"gan": GAN_G}, {"fake": FAKE, "gan": GANCritic(0.0, view="c")})


@pytest.mark.parametrize("term", [DM, ScoreIdentity(view="g")], ids=["dm", "sid"])
def test_a_score_needs_a_critic_that_learns_it(term):
    still = Denoising(weighting.eps, view="c", weight=0.0)
    with pytest.raises(
        ValueError, match=r"loss\.generator\.own reads the critic's score, and nothing"
    ):
        Objective(VIEWS, {"own": term}, {"fake": still})
    with pytest.raises(ValueError, match=r"type loss\.critic\.denoising\.weight=1\.0"):
        Objective(VIEWS, {"own": term}, {"fake": still, "gan": GAN_D})


def test_a_generator_that_reads_single_logits_needs_a_discriminator_that_fixes_them():
    relativistic = {"fake": FAKE, "gan": RelativisticGANCritic(1.0, view="c")}
    with pytest.raises(ValueError, match=r"type loss\.generator\.gan\._target_=dmd2\.losses\.Rela"):
        Objective(VIEWS, {"gan": GAN_G}, relativistic)
    Objective(VIEWS, {"gan": RelativisticGANGenerator(1.0, view="g")}, relativistic)


@pytest.mark.parametrize(
    "gan",
    [GANCritic(1.0, view="c", loss=partial(F.hinge_critic)), RelativisticGANCritic(1.0, view="c")],
    ids=["hinge", "relativistic"],
)
def test_a_ratio_of_densities_needs_the_logistic_loss(gan):
    ratio = FDivergence(divergences.forward_kl, view="g")
    with pytest.raises(
        ValueError, match=r"loss\.generator\.dm .*; type loss\.critic\.gan\._target_=dmd2\."
    ):
        Objective(VIEWS, {"dm": ratio}, {"fake": FAKE, "gan": gan})
    logistic = GANCritic(1.0, view="c", loss=partial(F.gan_critic))
    for term in (logistic, GAN_D):
        Objective(VIEWS, {"dm": ratio}, {"fake": FAKE, "gan": term})


@pytest.mark.parametrize(("generator", "critic"), [({}, {"fake": FAKE}), ({"dm": DM}, {})])
def test_either_network_needs_a_term(generator, critic):
    with pytest.raises(ValueError, match="at least one generator term and one critic term"):
        Objective(VIEWS, generator, critic)
