"""The objective, as a loss file states it: loss terms of generator and critic, and noised views."""

from collections.abc import Mapping

from dmd2.diffusion.training_times import TimeSampler
from dmd2.losses.term import Term
from dmd2.losses.terms import FDivergence, GANCritic


class Objective:
    """Generator terms and critic terms by name, and the time distribution of every view they name.

    Terms that name the same view share its noise and the networks' passes over it; terms with views
    of their own draw independently, as the authors do. A term that is None is left out.

    Raises ValueError where a network has no term, a term reads a view that is not there, no term
    reads a view, a generator GAN term has no critic GAN term beside it, or an `FDivergence` has a
    discriminator that is not trained by the logistic loss.

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
        # The generator would otherwise follow a discriminator that keeps its random weights, or
        # that a penalty alone moves.
        is_trained = any(isinstance(term, GANCritic) for term in self.critic.values())
        if "discriminator" in self.needs and not is_trained:
            raise ValueError(
                "a generator GAN term needs the critic's GAN term too: nothing trains its "
                "discriminator"
            )
        ratios = [n for n, term in self.generator.items() if isinstance(term, FDivergence)]
        for name, term in self.critic.items():
            if ratios and isinstance(term, GANCritic) and not term.is_logistic:
                raise ValueError(
                    f"loss.generator.{ratios[0]} takes exp D for a ratio of densities, which D is "
                    f"the log of under the logistic loss alone, and loss.critic.{name} has another "
                    f"one; type loss.critic.{name}._target_=dmd2.losses.GANCritic and no "
                    f"loss.critic.{name}.loss"
                )
