"""The objective, as a loss file states it: loss terms of generator and critic, and noised views."""

from collections.abc import Mapping

from dmd2.diffusion.training_times import TimeSampler
from dmd2.losses.term import Term
from dmd2.losses.terms import (
    FDivergence,
    GANCritic,
    GANGenerator,
    RelativisticGANCritic,
    ScoreIdentity,
)


class Objective:
    """Generator terms and critic terms by name, and the time distribution of every view they name.

    Terms that name the same view share its noise and the networks' passes over it; terms with views
    of their own draw independently, as the authors do. A term that is None is left out.

    Raises ValueError where a network has no term, a term reads a view that is not there, no term
    reads a view, a term reads a score or a discriminator that no critic term trains, an
    `FDivergence` a discriminator of another than the logistic loss, or a `GANGenerator` a
    relativistic one.

    >>> from dmd2.diffusion import UniformRows
    >>> from dmd2.losses import Denoising, DistributionMatching, weighting
    >>> objective = Objective(
    ...     views={"dm": UniformRows(0.02, 0.98), "critic": UniformRows()},
    ...     generator={"dm": DistributionMatching(view="dm")},
    ...     critic={"denoising": Denoising(weighting.eps, view="critic")},
    ... )
    >>> objective.needs  # neither real samples nor a discriminator
    frozenset()
    """

    def __init__(
        self,
        views: Mapping[str, TimeSampler],
        generator: Mapping[str, Term | None],
        critic: Mapping[str, Term | None],
    ) -> None:
        self.views = views
        # In YAML a row cannot be taken out of an inherited file, only set to null.
        self.generator = {name: term for name, term in generator.items() if term is not None}
        self.critic = {name: term for name, term in critic.items() if term is not None}
        if not self.generator or not self.critic:
            raise ValueError("a loss needs at least one generator term and one critic term")
        # By the address that a user types to change one: "generator.gan".
        terms = {
            f"{p}.{n}": t
            for p, ts in (("generator", self.generator), ("critic", self.critic))
            for n, t in ts.items()
        }
        named = {term.view for term in terms.values() if term.view is not None}
        for name, term in terms.items():
            if term.view is not None and term.view not in views:
                raise ValueError(
                    f"loss.{name} reads the view {term.view!r}, but loss.views has "
                    f"{', '.join(views)}"
                )
        # A view that nobody reads is most likely a misspelt one.
        if unread := set(views) - named:
            raise ValueError(
                f"no term reads loss.views.{min(unread)}; remove it or name it in a term"
            )
        self.needs = frozenset().union(*(term.needs for term in terms.values()))
        # Views that the discriminator reads: critic turns put real rows into them.
        self.gan_views = frozenset(
            str(term.view) for term in terms.values() if "discriminator" in term.needs
        )
        # Passes, as (network, view), that go on to the decoder.
        self.decoded = frozenset(
            (who, str(term.view)) for term in terms.values() for who in term.decodes
        )
        check_score(self.generator, self.critic)
        check_discriminator(terms)


def check_score(generator: Mapping[str, Term], critic: Mapping[str, Term]) -> None:
    """Raise ValueError where a generator term reads a fake score that no critic term trains."""
    if any(term.weight > 0 and "discriminator" not in term.needs for term in critic.values()):
        return
    for name, term in generator.items():
        if "critic" in term.decodes or isinstance(term, ScoreIdentity):
            raise ValueError(
                f"loss.generator.{name} reads the critic's score, and nothing trains it; type "
                "loss.critic.denoising.weight=1.0, or give loss.critic a term as in "
                "conf/loss/no_gan.yaml"
            )


def check_discriminator(terms: Mapping[str, Term]) -> None:
    """Raise ValueError where terms, by address, read a discriminator that is not trained as they
    want it.
    """
    reading = [name for name, term in terms.items() if "discriminator" in term.needs]
    gans = {n: t for n, t in terms.items() if isinstance(t, GANCritic) and t.weight > 0}
    # The generator would otherwise follow one that keeps its random weights, or that a penalty
    # alone moves.
    if reading and not gans:
        raise ValueError(
            f"loss.{reading[0]} reads the discriminator, and nothing trains it; give loss.critic a "
            "GAN term of a weight above 0, as in conf/loss/dmd2.yaml, or type loss=no_gan"
        )
    is_relativistic = any(isinstance(term, RelativisticGANCritic) for term in gans.values())
    others = [n for n, term in gans.items() if not term.is_logistic]
    for name, term in terms.items():
        if isinstance(term, GANGenerator) and is_relativistic:
            raise ValueError(
                f"loss.{name} reads the logits of single samples, which a relativistic "
                "discriminator knows only up to a constant; type "
                f"loss.{name}._target_=dmd2.losses.RelativisticGANGenerator and no "
                f"loss.{name}.loss"
            )
        if isinstance(term, FDivergence) and others:
            raise ValueError(
                f"loss.{name} takes exp D for a ratio of densities, which D is the log "
                f"of under the logistic loss alone, and loss.{others[0]} has another one; "
                f"type loss.{others[0]}._target_=dmd2.losses.GANCritic and no "
                f"loss.{others[0]}.loss"
            )
