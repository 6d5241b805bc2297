"""`dmd2 VERB --choices [GROUP]`, and what the shell completes; words alone, without torch."""

from collections.abc import Iterable, Mapping, Sequence

from dmd2.config.check import options_of
from dmd2.config.folder import choices, config_folder
from dmd2.config.keys import VERBS_OF_EXPERIMENTS, closest, node_at
from dmd2.config.words import skeleton

FLAGS = ("--help", "--choices", "--cfg", "--check", "--multirun")
BASH = """_dmd2() {
    local IFS=$'\\n'
    COMPREPLY=($(dmd2 --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o nospace -F _dmd2 dmd2"""
"""What `eval "$(dmd2 --completion bash)"` takes in."""


def groups(verb: str) -> list[str]:
    """The config groups that a verb chooses from."""
    if verb in VERBS_OF_EXPERIMENTS:
        known = {path.name for path in config_folder().iterdir()} - {"part", "recipe"}
    else:
        known = options_of(verb)
    return sorted(name for name in known if choices(name))


def choices_page(verb: str, group: str | None) -> str:
    """The choices of a group, each with a sentence; without a group, those of all in short.

    Raises ValueError for a group that the verb has not.
    """
    known = groups(verb)
    if group is None:
        if not known:
            return f"dmd2 {verb} has no groups to choose from; dmd2 {verb} --help has its options"
        return "\n".join(f"{name:10s} {', '.join(choices(name))}" for name in known)
    if group not in known:
        close = closest(group, known)
        hint = f"did you mean {close}?" if close else f"choose from {', '.join(known)}"
        raise ValueError(f"dmd2 {verb} has no group {group}; {hint}")
    return "\n".join(f"{group}={name:28s} {what}" for name, what in choices(group).items())


def completions(line: str, verbs: Iterable[str]) -> list[str]:
    """What may follow at the end of a command line, from its last "=" or space on."""
    _, *words = line.split(" ")
    typed = [word for word in words[:-1] if word]
    last = words[-1] if words else ""
    if not typed:
        return [f"{verb} " for verb in verbs if verb.startswith(last)]
    verb = typed[0]
    if verb not in verbs:
        return []
    key, equals, value = last.partition("=")
    if typed[-1] == "--choices":
        return [f"{name} " for name in groups(verb) if name.startswith(last)]
    if last.startswith("-"):
        return [f"{flag} " for flag in FLAGS if flag.startswith(last)]
    # "=" parts words for bash, so that only what stands behind it is completed.
    if equals:
        return [f"{name} " for name in choices(key) if name.startswith(value)]
    return list(_keys(verb, typed[1:], last))


def _keys(verb: str, overrides: Sequence[str], last: str) -> Iterable[str]:
    """Groups and keys that begin with `last`; a section ends in a dot, a key in "="."""
    plus = "+" if last.startswith("+") else ""
    section, _, stub = last.removeprefix("+").rpartition(".")
    names = [f"{name}=" for name in groups(verb)] if not section else []
    node = node_at(skeleton(verb, list(overrides)), section)
    for name, value in node.items() if isinstance(node, Mapping) else ():
        path = f"{section}.{name}".lstrip(".")
        names.append(f"{path}." if isinstance(value, Mapping) and value else f"{path}=")
    begin = f"{section}.{stub}".lstrip(".")
    # Keys with an underscore are Hydra's own.
    return sorted(
        {
            plus + n
            for n in names
            if n.startswith(begin) and not n[len(section) + 1 :].startswith("_")
        }
    )
