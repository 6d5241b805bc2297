"""Entry point of the command line, `dmd2 VERB key=value ...`; `dmd2 --help` lists the verbs."""

import difflib
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from dmd2.cli.arguments import check_arguments, without_check
from dmd2.cli.pipes import outliving_readers
from dmd2.config.folder import choices
from dmd2.config.keys import VERBS_OF_EXPERIMENTS
from dmd2.distributed import hangup, slurm

VERBS = {
    "train": "distil a teacher into a few-step generator, score it, show it",
    "pretrain": "only train the teacher of an experiment, if it is not there yet",
    "pairs": "only make an experiment's noise-image pairs (DMD's data set)",
    "plan": "say what an experiment takes: memory, FLOPs, traffic, disk, time; nothing is run",
    "prepare": "make data ready for training: ImageNet at 64x64, latents of captioned images",
    "sample": "draw samples from a run's student",
    "evaluate": "score a run's student again",
    "export": "write a text-to-image student as a pipeline of diffusers",
    "check": "say again whether a run is healthy, what is wrong and what to try",
    "compare": "one table and one picture of many runs",
    "benchmark": "measure a part on this host, e.g. the speed of the data loader",
    "import": "turn published weights into a file that this program reads",
}
MODULES = {"import": "import_weights", "check": "health"}
"""Modules of another name than their verb: `import` is a keyword, cli/check.py is `--check`'s."""

HELP = """dmd2: diffusion models in one to four steps, by distribution matching distillation.

usage: dmd2 VERB [KEY=VALUE ...]      dmd2 VERB --help says more

{verbs}

  dmd2 VERB --choices [GROUP]       what a group has to choose from, e.g. dmd2 train --choices loss
  dmd2 VERB --cfg job [KEY=VALUE]   the whole configuration, and nothing is run
  dmd2 train --check [KEY=VALUE]    what would be trained, or all that is missing; writes nothing
  dmd2 --version                    the version of this program
  dmd2 --completion bash            what bash completes at Tab; eval "$(dmd2 --completion bash)"

Start with `dmd2 train`: some minutes on a laptop, from handwritten digits to a one-step generator.
"""


def main() -> None:
    """Run a verb; a user's mistake ends with one line and exit code 2, Ctrl-C with 130."""
    with outliving_readers():
        run_command()


def run_command() -> None:
    """Answer the arguments in sys.argv."""
    # Everything up to the import below answers in a fraction of a second: no Hydra, no torch.
    verb, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {name:10s} {what}" for name, what in VERBS.items())))
        return
    if verb == "--version":
        print(f"dmd2 {version('dmd2')}")
        return
    if verb in ("--completion", "--complete"):
        from dmd2.cli.choices import BASH, completions  # noqa: PLC0415

        if verb == "--completion" and rest != ["bash"]:
            print("dmd2: completion is for bash; type dmd2 --completion bash", file=sys.stderr)
            sys.exit(2)
        print(BASH if verb == "--completion" else "\n".join(completions(" ".join(rest[:1]), VERBS)))
        return
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(VERBS)}"
        print(f"dmd2: there is no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    # Hydra's own pages say how to install a completion that cannot work for `dmd2 VERB`.
    if {"-h", "--help", "--hydra-help", "--shell-completion", "-sc"} & set(rest):
        print(verb_help(verb))
        return
    try:
        Path.cwd()
    except FileNotFoundError:
        print("dmd2: the directory that you are in was removed; type cd DIR", file=sys.stderr)
        sys.exit(2)
    # Ranks of one run and jobs of one sweep must agree on the run's name, so it is fixed before
    # Hydra starts; Hydra's own ${now:} would give each process another.
    os.environ.setdefault("DMD2_RUN_ID", time.strftime("%Y-%m-%d_%H-%M-%S"))
    # Without it Hydra prints errors in its own words and exits, and `errors` could not.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # Before the imports below, which take seconds: Slurm's signal would end the job meanwhile.
    if slurm.active():
        slurm.listen()
        slurm.name_ranks()
    # Hydra reads overrides from sys.argv, and shows its first entry as the program's name.
    sys.argv = [f"dmd2 {verb}", *rest]
    from dmd2.cli.choices import choices_page  # noqa: PLC0415
    from dmd2.cli.errors import fail_for_users  # noqa: PLC0415
    from dmd2.cli.verbs import run_verb  # noqa: PLC0415

    try:
        if "--choices" in rest:
            print(choices_page(verb, next((word for word in rest if word[:1] != "-"), None)))
            return
        module = MODULES.get(verb, verb)
        if "--check" in rest:
            rest, module = without_check(verb, rest), "check"
            sys.argv = [f"dmd2 {verb}", *rest]
        check_arguments(verb, rest)
        if verb == "plan":
            from dmd2.cli.plan import main as plan  # noqa: PLC0415

            plan(rest)
            return
        with hangup.as_interrupt():
            run_verb(verb, f"dmd2.cli.{module}")
    except KeyboardInterrupt:  # before there is anything to save
        sys.exit(130)
    except Exception as error:  # e.g. a config that Hydra cannot compose: no verb has begun yet
        fail_for_users(error)
        raise


def verb_help(verb: str) -> str:
    """A verb's help page: its module's docstring, and the experiments where it takes one."""
    # From the source text, since importing the module would load torch.
    source = (Path(__file__).parent / f"{MODULES.get(verb, verb)}.py").read_text(encoding="utf-8")
    text = source.split('"""')[1].strip()
    if verb not in VERBS_OF_EXPERIMENTS:
        return text
    about = [f"  {name:28s} {what}" for name, what in choices("experiment").items()]
    return "\n".join([text, "", "Experiments:", *about])
