"""What is proposed in place of an argument that Hydra cannot read is read as it was meant."""

import random
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dmd2.cli.quotes import mended, parsed


def read(argument: str) -> Any:
    """What Hydra takes an argument of a shell for."""
    (word,) = shlex.split(argument)
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("[data.source=none]", ["data.source=none"]),
        ("[seed=1, a]", ["seed=1", "a"]),
        ("[1,x=y,[null,b=c]]", [1, "x=y", [None, "b=c"]]),
        ("{a:b=c,d:{e:[f=g]},h:0.5}", {"a": "b=c", "d": {"e": ["f=g"]}, "h": 0.5}),
        ("[{source=x,scale=2}]", [{"source": "x", "scale": 2}]),
        ('[it\'s (one), "a,b", c=d]', ["it's (one)", "a,b", "c=d"]),
        ("[1,2", [1, 2]),
        ("[x]/dir", "[x]/dir"),
        ("a:b(", "a:b("),
        ('(a"b)\\', '(a"b)\\'),
    ],
)
def test_the_proposal_is_read_as_what_was_meant(value: str, meant: object) -> None:
    assert parsed(f"key={value}") is None
    typed = mended(f"key={value}")
    assert typed is not None and read(typed) == meant


def test_a_text_that_cannot_be_read_is_read_as_itself_in_quotes() -> None:
    draw = random.Random(0)
    texts = ("".join(draw.choices("ab \"'\\()=,:$%", k=8)) for _ in range(500))
    unread = [text for text in texts if parsed(f"key={text}") is None]
    assert len(unread) > 50
    for text in unread:
        typed = mended(f"key={text}")
        assert typed is not None and read(typed) == text


def test_quotes_do_not_mend_a_key() -> None:
    assert mended("a[0]=1") is None and mended("a b=1") is None
