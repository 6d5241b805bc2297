"""The table of docs/health.md, generated from the checks that a run makes."""


def table() -> str:
    """Markdown: a row a check, with its rule, why it matters and what to try."""
    # Imported here: the tests of links and other pages need not load torch.
    from dmd2.evaluation.health import CHECKS  # noqa: PLC0415

    lines = ["| verdict | when | why it matters | what to try |", "|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c} | {c.reason} | {c.remedy} |" for c in CHECKS]
    return "\n".join(lines)
