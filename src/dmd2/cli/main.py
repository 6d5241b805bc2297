"""`dmd2 VERB key=value ...`: the one console command; `dmd2 --help` lists its verbs."""

import difflib
import importlib
import os
import sys
import time
from pathlib import Path

from dmd2.distributed import slurm

VERBS = {
    "train": "distil a teacher into a few-step generator, score it, show it",
    "pretrain": "only train the teacher of an experiment, if it is not there yet",
    "pairs": "only make an experiment's noise-image pairs (DMD's data set)",
    "prepare": "make data ready for training: ImageNet at 64x64, latents of captioned images",
    "sample": "draw samples from a run's student",
    "evaluate": "score a run's student again",
    "export": "write a text-to-image student as a pipeline of diffusers",
    "compare": "one table and one picture of many runs",
    "benchmark": "measure a part on this host: images a second of the loader",
    "import": "turn published weights into a file that this program reads",
}
MODULES = {"import": "import_weights"}
"""Where a verb's module has another name: Python keeps this word for itself."""

HELP = """dmd2: diffusion models in one to four steps, by distribution matching distillation.

usage: dmd2 VERB [KEY=VALUE ...]      dmd2 VERB --help says more

{verbs}

Start with `dmd2 train`: some minutes on a laptop, from handwritten digits to a one-step generator.
"""


def main() -> None:
    """Run a verb; a user's mistake ends with one line and exit code 2, Ctrl-C with 130."""
    verb, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {name:10s} {what}" for name, what in VERBS.items())))
        return
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(VERBS)}"
        print(f"dmd2: there is no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    if {"-h", "--help"} & set(rest):
        print(verb_help(verb))
        return
    # Ranks of one run and jobs of one sweep must agree on the run's name, so it is fixed before
    # Hydra starts.
    os.environ.setdefault("DMD2_RUN_ID", time.strftime("%Y-%m-%d_%H-%M-%S"))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here whole, and leave as one line
    if slurm.active():
        slurm.listen()
        slurm.name_ranks()
    sys.argv = [f"dmd2 {verb}", *rest]
    from dmd2.cli.errors import fail_for_users  # noqa: PLC0415

    try:
        importlib.import_module(f"dmd2.cli.{MODULES.get(verb, verb)}").main()
    except KeyboardInterrupt:  # before there is anything to save
        sys.exit(130)
    except Exception as error:
        fail_for_users(error)
        raise


def verb_help(verb: str) -> str:
    """A verb's own page: its module's docstring, read without importing it, and the experiments
    there are.
    """
    source = (Path(__file__).parent / f"{MODULES.get(verb, verb)}.py").read_text()
    text = source.split('"""')[1].strip()
    if verb not in ("train", "pretrain", "pairs"):
        return text
    from dmd2.config.check import config_folder  # noqa: PLC0415

    files = sorted((config_folder() / "experiment").glob("*.yaml"))
    about = [f"  {path.stem:28s} {sentence(path)}" for path in files]
    return "\n".join([text, "", "Experiments:", *about])


def sentence(path: Path) -> str:
    """The first sentence of a YAML file's comment."""
    lines = path.read_text().splitlines()
    comment = " ".join(line[2:] for line in lines if line.startswith("# ") and "@" not in line)
    return f"{comment.partition('. ')[0].rstrip('.')}."
