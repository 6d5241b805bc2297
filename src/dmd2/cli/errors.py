"""Error messages and exit codes: a user's mistake is one line on stderr and 2, Ctrl-C is 130."""

import difflib
import functools
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from dmd2.cli.quotes import mended
from dmd2.config.check import unknown_override
from dmd2.config.folder import config_folder
from dmd2.config.keys import VERBS_OF_EXPERIMENTS
from dmd2.config.missing import Missing
from dmd2.config.options import OPTIONS
from dmd2.config.words import CHOICES
from dmd2.distributed.slurm import Requeue, requeue
from dmd2.io.shown import in_one_line, printable

USER_ERRORS = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    HydraException,
    OmegaConfBaseException,
)
"""Exceptions whose text is for the user; all others are errors of this program."""


def one_line(error: BaseException) -> str | None:
    """A user's mistake in one line; None for an error of ours, which keeps its traceback.

    Only a long list of choices takes several lines, and several things that are missing.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        # The constructor's own message, without Hydra's account of where it was called. Of a
        # wrong argument (TypeError, so no user's error) Hydra's account says more.
        return one_line(error.__cause__) or in_one_line(error)
    if isinstance(error, Missing):
        return str(error)
    text = in_one_line(error)
    # torch reports a worker that was killed as a plain RuntimeError; nearly always by lack of
    # memory, which a user can mend.
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        return (
            f"{text.rstrip('. ')}; where memory ran out, lower data.num_workers; to go on type "
            "resume=auto"
        )
    if not isinstance(error, USER_ERRORS):
        return None
    if isinstance(error, InterpolationKeyError):
        # The text has no attribute for the key that is missing, only quotes around it.
        lacking = re.sub(r"^.*?'(.*?)'.*$", r"\1", text)
        return does_not_fit(str(error.full_key), lacking)
    # Hydra's messages: the config's name in front and the search path behind help no user.
    text = re.sub(r"^In '\w+': (.*?) Config search path:.*", r"\1", text)
    if unknown := re.match(r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*)", text):
        return no_choice(*unknown.groups())
    # sys.argv[0] is "dmd2 VERB", set by `main`.
    verb, overrides = sys.argv[0].removeprefix("dmd2 "), sys.argv[1:]
    if "Config group override must be a string" in text:
        groups = (o for o in overrides if (config_folder() / o.partition("=")[0]).is_dir())
        given = next((o for o in groups if o.endswith("=null")), "KEY=null")
        group = given.partition("=")[0]
        return f"{given} names no choice; type {group}=NAME, of: dmd2 {verb} --choices {group}"
    if isinstance(error, OverrideParseException) or "--multirun" in text:
        return unread(error, text, verb)
    return lacks_below(error, text) or unknown_override(text, verb, overrides) or text


def lacks_below(error: BaseException, text: str) -> str | None:
    """The message for a mapping with a key that is not in the mapping it is merged into, or None.

    Hydra names the mapping alone, which is there.
    """
    found = re.search(r"Could not override '([^']+)'.* use \+\S+?=(.*)$", text)
    lacking = getattr(error.__cause__, "full_key", None)
    if found is None or lacking is None or not lacking.startswith(f"{found[1]}."):
        return None
    return (
        f"there is no key {lacking}: a mapping is merged into the one that is there; to put it in "
        f"its place type '~{found[1]}' '+{found[1]}={found[2]}'"
    )


def unread(error: BaseException, text: str, verb: str) -> str:
    """The message for an argument that Hydra's grammar does not take, or takes for a sweep."""
    if isinstance(error, OverrideParseException):
        if (typed := mended(error.override)) is None:
            return f"{error.override} cannot be read; type KEY=VALUE, e.g. data.source=DIR"
        return (
            f"{error.override} cannot be read; a text with brackets, colons, equals signs or the "
            f"like stands in quotes: type {typed}"
        )
    given = re.search(r"'([^']+=.*?)'(?: requires|\.| )", text)
    argument = given[1] if given else "KEY=A,B"
    key, _, value = argument.partition("=")
    # In brackets range(3) would stay itself.
    one = "" if value.endswith(")") else f"; {shlex.quote(f'{key}=[{value}]')} is one list"
    if verb not in VERBS_OF_EXPERIMENTS:
        kind = OPTIONS.get(key)
        if kind is not None and not any(map(kind.fits, (["a", "b"], [1, 2]))):
            one = f"; {key} must be {kind.what}: type e.g. {key}={kind.example}"
        return f"{argument} is a sweep, and dmd2 {verb} takes one value a key{one}"
    return f"{argument} is a sweep; type dmd2 {verb} --multirun {shlex.quote(argument)}{one}"


def does_not_fit(key: str, lacking: str) -> str:
    """The message where `key` refers to a key that the chosen option of another group lacks."""
    group, other = (name.partition(".")[0] for name in (key, lacking))
    if not (config_folder() / other).is_dir():  # e.g. after ~seed
        return f"{key} reads {lacking}, and there is no {lacking}; leave ~{lacking} out"
    return (
        f"{key} reads {lacking}, and this {other} has none; choose what goes together: "
        f"{group}=NAME {other}=NAME"
    )


def no_choice(group: str, name: str, options: str) -> str:
    """The message for an unknown choice of a group: the choices that there are."""
    names = [option.rstrip(",") for option in options.split()]
    # By their likeness to what was typed: the one that was meant is read first.
    close = difflib.get_close_matches(name, names, 3)
    hint = f"; did you mean {', or '.join(f'{group}={near}' for near in close)}?" if close else ""
    if (instead := CHOICES.get(group, {}).get(name.lower())) is not None:
        hint = f" (type {instead})"
    listed = ", ".join([*close, *(other for other in names if other not in close)])
    ending = "Choose" if hint.endswith("?") else "; choose"
    message = f"there is no {group}={name}{hint}{' ' * hint.endswith('?')}{ending} from {listed}"
    # There are dozens of experiments: wrapped, and names not broken, so that one can copy them.
    return textwrap.fill(
        message, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, what caused that; a circle of them ends."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def fail_for_users(error: BaseException) -> None:
    """End the process if the mistake is its user's; return if the error is ours."""
    # A library that is interrupted may fail at what it left half done.
    if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
        sys.exit(130)
    if (line := one_line(error)) is not None:
        print(f"dmd2: {printable(line)}", file=sys.stderr)
        sys.exit(2)


def user_errors(task: Callable[[Any], None]) -> Callable[[Any], None]:
    """Decorate a task, inside `hydra.main`, so that its errors end the process with one line.

    A Slurm job that was interrupted is requeued.
    """

    @functools.wraps(task)
    def run(composed: Any) -> None:
        try:
            task(composed)
        except Requeue:  # the checkpoint is written; only now may Slurm start the job again
            requeue()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            fail_for_users(error)
            raise

    return run
