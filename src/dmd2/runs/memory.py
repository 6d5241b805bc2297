"""What a run holds on its device, in words: as planned before, and as measured."""

from collections.abc import Mapping

GIB = 2**30


def planned_words(planned: Mapping[str, int]) -> str:
    """Bytes at each peak of a run's plan.

    >>> planned_words({"training": 5 * 2**30, "sample grid": 6 * 2**30})
    '5.00 GiB of tensors at the peak of training, 6.00 of a sample grid'
    """
    first, *others = planned.items()
    begin = f"{first[1] / GIB:.2f} GiB of tensors at the peak of {first[0]}"
    return ", ".join([begin, *(f"{size / GIB:.2f} of a {name}" for name, size in others)])


def measured_words(measured: int, planned: Mapping[str, int] | None) -> str:
    """The most bytes that a run held, beside the highest peak of its plan where it has one.

    >>> measured_words(11 * 2**29, {"training": 5 * 2**30})
    '5.5 GiB at its peak, 5 planned (10 % more)'
    >>> measured_words(2**30, None)
    '1 GiB at its peak'
    """
    words = f"{measured / GIB:.3g} GiB at its peak"
    if not planned:
        return words
    most = max(planned.values())
    percent = 100 * measured / most - 100
    than = "more" if percent > 0 else "less"
    return f"{words}, {most / GIB:.3g} planned ({abs(percent):.0f} % {than})"
