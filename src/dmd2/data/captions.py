"""Tables of captions: a label of a captioned data set is the number of its caption here."""

from collections.abc import Sequence


def filled(phrasings: Sequence[str], words: Sequence[str]) -> list[str]:
    """Every phrasing with every word in the place of its {}; caption i has word i modulo the number of words."""
    if not all("{}" in phrasing for phrasing in phrasings):
        raise ValueError(f"a phrasing needs a place for the word, {{}}; got {list(phrasings)}")
    return [phrasing.format(word) for phrasing in phrasings for word in words]
