"""The types and ranges of the options of the verbs that train nothing, in words for the user."""

from dmd2.config.values import TEXT, Kind, is_whole, one_of, whole

LAYOUTS = ("files", "geneval", "dpg_bench")
_COUNTS = "a whole number of at least 1, or a list of them"
OPTIONS: dict[str, Kind] = {
    "run": TEXT,
    "runs": Kind("text, one folder that holds all the runs", "runs/sweeps/NAME", TEXT.fits),
    **{name: TEXT.or_null() for name in ("source", "out", "weights")},
    "num_images": whole(1, 100).or_null(),
    "label": Kind("a whole number, or null", "0", lambda x: x is None or is_whole(x)),
    "prompt": Kind(
        "a text, a list of texts, a file of captions",
        '\'["a red dot","two dots"]\'',
        lambda x: (
            x != [] and all(isinstance(text, str) for text in (x if isinstance(x, list) else [x]))
        ),
    ).or_null(),
    "layout": one_of(*LAYOUTS),
    "seed": whole(0, 0),
    "dtype": Kind(
        "float32, bfloat16 or null", "bfloat16", lambda x: x in (None, "float32", "bfloat16")
    ),
    "batch_size": whole(1, 100).or_null(),
    "num_samples": Kind(
        f"{_COUNTS}, or null",
        "10000",
        lambda x: (
            x is None
            or all(is_whole(n) and n > 0 for n in (x if isinstance(x, list) and x else [x]))
        ),
    ),
}
"""Options of the verbs that train nothing; one of a name means the same for each of them."""
