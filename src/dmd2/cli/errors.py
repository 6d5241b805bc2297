"""How a command ends on a mistake of its user: one line on stderr, exit code 2; Ctrl-C gives
130.
"""

import functools
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from dmd2.config.check import unknown_override
from dmd2.distributed.slurm import Requeue, requeue

USERS = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    HydraException,
    OmegaConfBaseException,
)
ELSEWHERE = {"recipe=pairs": " (type dmd2 pairs experiment=NAME)"}
"""Choices that one may look for in a group, and where they are."""


def one_line(error: BaseException) -> str | None:
    """A user's mistake in one line (but for a long list); None for an error of ours, which deserves
    its traceback.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        # What a constructor said, without Hydra's account of where; of a wrong type Hydra's account
        # says more.
        return one_line(error.__cause__) or " ".join(str(error).split())
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        return (
            f"{text.rstrip('. ')}; where memory ran out, lower data.num_workers; to go on type "
            "resume=auto"
        )
    if not isinstance(error, USERS):
        return None
    if isinstance(error, InterpolationKeyError):
        lacking = re.sub(r"^.*?'(.*?)'.*$", r"\1", text)
        return does_not_fit(str(error.full_key), lacking)
    text = re.sub(r"^In '\w+': (.*?) Config search path:.*", r"\1", text)
    if unknown := re.match(r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*)", text):
        return no_choice(*unknown.groups())
    return unknown_override(text, sys.argv[0].removeprefix("dmd2 ")) or text


def does_not_fit(key: str, lacking: str) -> str:
    """A key refers to one of another part, which the chosen one has not."""
    group, other = (name.partition(".")[0] for name in (key, lacking))
    return (
        f"{key} reads {lacking}, and this {other} has none; choose what goes together: "
        f"{group}=NAME {other}=NAME"
    )


def no_choice(group: str, name: str, options: str) -> str:
    """What there is in place of an unknown choice; a long list goes on below, indented."""
    choice = f"{group}={name}"
    said = (
        f"there is no {choice}{ELSEWHERE.get(choice, '')}; choose from {', '.join(options.split())}"
    )
    return textwrap.fill(
        said, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def fail_for_users(error: BaseException) -> None:
    """End the process if the mistake is its user's; return if the error is ours."""
    if (line := one_line(error)) is not None:
        print(f"dmd2: {line}", file=sys.stderr)
        sys.exit(2)


def user_errors(task: Callable[[Any], None]) -> Callable[[Any], None]:
    """Decorate a task, inside `hydra.main`, so that its mistakes are told here and not in Hydra's
    words.
    """

    @functools.wraps(task)
    def run(composed: Any) -> None:
        try:
            task(composed)
        except Requeue:
            requeue()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            fail_for_users(error)
            raise

    return run
