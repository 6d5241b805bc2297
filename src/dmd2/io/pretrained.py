"""Networks of transformers and diffusers from files that hold every weight of them, and no other.

Both libraries fill what a file lacks with random numbers, and pass over what has no place; and
transformers' tokenizers of files that hold words.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmd2.io.hub import named_in_errors

MEANINGLESS = {
    "pooled_projection_dim",  # Qwen-Image's, whose class of diffusers has no such argument any more
    # What diffusers' EMAModel adds where it saves averaged weights.
    *("decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup"),
    *("inv_gamma", "power"),
    "block_out_channels",  # what AutoencoderTiny derives from two others, and saves
}
"""Keys of published files that the class of their network does not know, and that change none."""


def read_whole(kind: Any, source: Any, **how: Any) -> Any:
    """`kind.from_pretrained(source, **how)`.

    Raises ValueError that names a weight which the files lack, which has another shape than the
    config says, or for which the config has no place; otherwise as `from_pretrained`.
    """
    with _without_reports():
        network, found = kind.from_pretrained(source, output_loading_info=True, **how)
    for what, words in (
        ("missing_keys", "its files lack the weight"),
        ("mismatched_keys", "its config.json says another shape than its files have of"),
        ("unexpected_keys", "its config.json has no place for the weight"),
    ):
        # Of a mismatch name and shapes; old files hold numbers of positions, which are computed.
        names = sorted(key if isinstance(key, str) else key[0] for key in found[what])
        if wrong := [name for name in names if not name.endswith("position_ids")]:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ValueError(f"{words} {wrong[0]}{more}; download or save it again")
    return network


def read_tokenizer(kind: Any, source: str, subfolder: str = "") -> Any:
    """`kind.from_pretrained(source, subfolder=subfolder)`.

    Raises what `check_words` raises, OSError where there is nothing, and ValueError in a line where
    the files make no sense.
    """
    with named_in_errors(source, subfolder or "tokenizer"):
        tokenizer = kind.from_pretrained(source, subfolder=subfolder)
    check_words(tokenizer, Path(source, subfolder))
    return tokenizer


def check_words(tokenizer: Any, place: str | Path) -> None:
    """Raise FileNotFoundError where a tokenizer that was read from `place` has no vocabulary.

    transformers makes one without words then, to which all texts are alike.
    """
    words = set(tokenizer.get_vocab()) - set(tokenizer.added_tokens_encoder)
    if len(words.difference(tokenizer.all_special_tokens)) < 2:  # T5's then has its sign of a space
        raise FileNotFoundError(
            f"there is no tokenizer at {place}: it has no vocabulary (tokenizer.json or vocab "
            "files); download or save it again"
        )


def check_known(what: str, config: Mapping[str, Any], network: Any) -> None:
    """Raise ValueError for the first key of a file that says something, and that the class of
    diffusers which it describes has no argument for.
    """
    known = MEANINGLESS.union(inspect.signature(type(network)).parameters)
    for key, value in config.items():
        # Keys with an underscore say where a file is from; null and false ask for nothing.
        if not key.startswith("_") and key not in known and value not in (None, False):
            raise ValueError(
                f"{what} has {key}={value!r:.60}, which the installed diffusers does not know; "
                "install a newer one, or take the key out if it means nothing"
            )


@contextmanager
def _without_reports() -> Iterator[None]:
    """Inside, the libraries do not report in tables what is said here in a line."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
