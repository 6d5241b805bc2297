"""The folder of YAML files, and the choices of its groups; read without Hydra."""

from pathlib import Path


def config_folder() -> Path:
    """The folder of YAML files, `conf`, of an installed wheel or of a checkout."""
    # The wheel has it inside the package, a checkout beside `src`.
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.exists() else Path(__file__).parents[3] / "conf"


def choices(group: str) -> dict[str, str]:
    """The choices of a config group, each with the first sentence of its file."""
    files = sorted((config_folder() / group).glob("*.yaml"))
    return {path.stem: sentence(path) for path in files}


def sentence(path: Path) -> str:
    """The first sentence of a YAML file's comment."""
    # A line with "@" is Hydra's `@package _global_`. ". " ends a sentence: "1.5" does not.
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line[2:] for line in lines if line.startswith("# ") and "@" not in line)
    return f"{comment.partition('. ')[0].rstrip('.')}."
