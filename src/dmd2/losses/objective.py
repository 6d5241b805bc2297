"""The objective, as a loss file states it: loss terms of generator and critic, and noised views."""

from collections.abc import Mapping

from dmd2.diffusion.training_times import TimeSampler
from dmd2.losses.term import Term
from dmd2.losses.terms import FDivergence, GANCritic, GANGenerator, RelativisticGANCritic


class Objective:
    """Generator terms and critic terms by name, and the time distribution of every view they name.

    Terms that name the same view share its noise and the networks' passes over it; terms with views
    of their own draw independently, as the authors do. A term that is None is left out.

    Raises ValueError where a network has no term, a term reads a view that is not there, no term
    reads a view, a term reads a discriminator that no critic GAN term trains, an `FDivergence` one
    that is not trained by the logistic loss, or a `GANGenerator` a relativistic one.

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
        if "discriminator" in self.needs:
            check_discriminator(self.generator, self.critic)


def check_discriminator(generator: Mapping[str, Term], critic: Mapping[str, Term]) -> None:
    """Raise ValueError where terms read a discriminator that is not trained as they want it."""
    gans = {n: t for n, t in critic.items() if isinstance(t, GANCritic) and t.weight > 0}
    # The generator would otherwise follow one that keeps its random weights, or that a penalty
    # alone moves.
    if not gans:
        raise ValueError(
            "a term that reads the discriminator needs the critic's GAN term, of a weight above 0: "
            "nothing trains its discriminator; type loss=dmd2 for both, or loss=no_gan for none"
        )
    is_relativistic = any(isinstance(term, RelativisticGANCritic) for term in gans.values())
    others = [n for n, term in gans.items() if not term.is_logistic]
    for name, term in generator.items():
        if isinstance(term, GANGenerator) and is_relativistic:
            raise ValueError(
                f"loss.generator.{name} reads the logit of single samples, which a relativistic "
                "discriminator knows up to a constant; type "
                f"loss.generator.{name}._target_=dmd2.losses.RelativisticGANGenerator"
            )
        if isinstance(term, FDivergence) and others:
            raise ValueError(
                f"loss.generator.{name} takes exp D for a ratio of densities, which D is the log "
                f"of under the logistic loss alone, and loss.critic.{others[0]} has another one; "
                f"type loss.critic.{others[0]}._target_=dmd2.losses.GANCritic and no "
                f"loss.critic.{others[0]}.loss"
            )
