"""How many samples scores are made of: one number, or rising ones that begin one set and are in the
scores' names.
"""

from collections.abc import Sequence


class Sizes:
    """`numbers` of samples. Of a lone number a score is called as its metric; of several "fid_10k",
    "fid_50k".
    """

    def __init__(self, num_samples: int | Sequence[int]) -> None:
        self.numbers = (num_samples,) if isinstance(num_samples, int) else tuple(num_samples)
        self.are_named = not isinstance(num_samples, int)
        if (
            not self.numbers
            or self.numbers[0] < 2
            or list(self.numbers) != sorted(set(self.numbers))
        ):
            raise ValueError(
                f"num_samples must be at least 2, or rising numbers, got {num_samples}; e.g. 10000"
            )

    def name(self, metric: str, num_samples: int) -> str:
        """What a metric of so many samples is called."""
        if not self.are_named:
            return metric
        return (
            f"{metric}_{num_samples}" if num_samples % 1000 else f"{metric}_{num_samples // 1000}k"
        )
