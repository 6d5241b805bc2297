"""The site: what is generated of conf/, of the commands and of the source, and that it builds."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from dmd2.cli.main import VERBS, verb_help
from dmd2.config.check import options_of
from dmd2.config.keys import VERBS_OF_EXPERIMENTS
from docs_hooks import conf_pages, website

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
CHOICES = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The generated pages."""
    return website.pages()


def leaves(node: object, path: str = "") -> dict[str, object]:
    """Every key of nested mappings that holds no mapping, by its dotted path."""
    if not isinstance(node, dict) or not node:
        return {path[1:]: node}
    return {key: x for name in node for key, x in leaves(node[name], f"{path}.{name}").items()}


def rows(text: str) -> dict[str, str]:
    """Key -> the rest of its row, of all tables."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_choice_is_there_with_its_comment_and_all_of_its_keys(
    choice: Path, pages: dict[str, str]
):
    page = pages[f"reference/conf/{choice.parent}.md"]
    section = page.partition(f"\n## {choice.stem} {{")[2].partition("\n## ")[0]
    assert section, f"{choice} has no section"
    text = (CONF / choice).read_text()
    first = next(line for line in text.splitlines() if line.startswith("# ") and "@" not in line)
    plain = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), section)
    assert first[2:] in plain.replace("\n", " ")
    node = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(node, dict)
    shown = rows(section)
    for key in leaves({name: x for name, x in node.items() if name not in ("defaults", "hydra")}):
        above = [key.rsplit(".", i)[0] for i in range(key.count(".") + 1)]
        assert not key or any(name in shown for name in above), f"{choice}: {key} is not shown"


def test_the_keys_of_train_yaml_have_their_defaults_and_comments(pages: dict[str, str]):
    shown = rows(pages["reference/conf/index.md"])
    text = (CONF / "train.yaml").read_text()
    text = text[text.index("\nname:") + 1 : text.index("\nhydra:")]
    # A comment stands behind its key, or on the lines above it.
    keys = re.findall(r"^((?:# .*\n)*)(\w+): +(\S.*?)(?: +# (.+))?$", text, re.MULTILINE)
    assert len(keys) > 15
    for above, key, default, behind in keys:
        comment = behind or " ".join(line[2:] for line in above.splitlines())
        said = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), shown[key])
        assert comment and comment in said and (default in said or default == "???"), key


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_s_page_is_its_help_with_all_of_its_options(verb: str, pages: dict[str, str]):
    section = pages["reference/verbs.md"].partition(f"## dmd2 {verb} {{")[2].partition("\n## ")[0]
    said, shown = verb_help(verb).partition("\nExperiments:")[0], rows(section)
    assert "".join(said.split()) in "".join(re.sub(r"```(?:text)?", "", section).split())
    if verb not in VERBS_OF_EXPERIMENTS:
        groups = {path.name for path in CONF.iterdir() if path.is_dir()}
        assert options_of(verb) - groups <= set(shown)


def test_recipes_has_every_experiment():
    page = website.on_page_markdown(
        (ROOT / "docs" / "recipes.md").read_text(), page=Page("recipes.md")
    )
    for path in (CONF / "experiment").glob("*.yaml"):
        assert f"[`{path.stem}`](reference/conf/experiment.md#{path.stem})" in page


def test_every_package_has_a_page_with_all_of_its_modules(pages: dict[str, str]):
    for path in (ROOT / "src" / "dmd2").rglob("*.py"):
        parts = path.relative_to(ROOT / "src" / "dmd2").with_suffix("").parts
        if parts[-1] != "__init__" and parts[0] != "cli":
            page = pages[f"reference/api/{'.'.join(parts[:-1]) or 'index'}.md"]
            assert f"::: {'.'.join(('dmd2', *parts))}\n" in page


class Page:
    """As much of mkdocs' page as the hooks read."""

    def __init__(self, uri: str) -> None:
        self.file = self
        self.src_uri = uri


@pytest.mark.parametrize(
    ("source", "page", "link", "leads"),
    [
        ("docs/a.md", "a.md", "[x](math.md#noise)", "[x](math.md#noise)"),
        ("docs/a.md", "a.md", "[x](../conf/train.yaml)", "[x](reference/conf/index.md#train)"),
        ("docs/a.md", "a.md", "[x](../conf/loss/dmd2.yaml)", "[x](reference/conf/loss.md#dmd2)"),
        ("docs/a.md", "a.md", "[x](../src/dmd2/randomness.py)", "[x][dmd2.randomness]"),
        ("docs/a.md", "a.md", "[x](../src/dmd2/losses)", "[x](reference/api/losses.md)"),
        (
            "docs/a.md",
            "a.md",
            "[x](../src/dmd2/cli/train.py)",
            "[x](reference/verbs.md#dmd2-train)",
        ),
        ("docs/a.md", "a.md", "[x](../tests/conftest.py)", "x"),
        ("docs/a.md", "a.md", "[x](https://example.org/a)", "[x](https://example.org/a)"),
        ("docs/a.md", "a.md", "```md\n[x](nowhere.md)\n```", "```md\n[x](nowhere.md)\n```"),
        ("README.md", "results/a.md", "[x](docs/slurm.md)", "[x](../slurm.md)"),
        (
            "experiments/toy2d/README.md",
            "results/toy2d.md",
            "[x](../../docs/math.md)",
            "[x](../math.md)",
        ),
    ],
)
def test_a_link_into_the_repository_leads_to_the_page_about_the_file(
    source: str, page: str, link: str, leads: str
):
    assert website.linked(link, source, page) == leads


def test_a_link_to_a_file_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="nowhere"):
        website.linked("[x](nowhere.md)", "docs/a.md", "a.md")


def test_comments_and_shapes_are_text_and_not_markup():
    assert conf_pages.cell("a|b <c> `d_e` $f$ g_h") == (
        "a\\|b &#60;c&#62; `d_e` &#36;f&#36; g&#95;h"
    )


def test_shapes_in_docstrings_are_code():
    pytest.importorskip("griffe")
    shapes = importlib.import_module("shapes")
    assert shapes.coded("x [B, C, H/2] of `[B]` and t [B]; pixels in [-1, 1]") == (
        "x `[B, C, H/2]` of `[B]` and t `[B]`; pixels in [-1, 1]"
    )


def test_equations_are_mathml_without_a_command_left():
    pytest.importorskip("latex2mathml")
    shown = website.equations(r'<span class="arithmatex">\(\frac{a}{b} &lt; 1\)</span>')
    assert shown.startswith("<math") and "<mfrac>" in shown and "script" not in shown
    with pytest.raises(ValueError, match="nosuch"):
        website.equations(r'<div class="arithmatex">\[\nosuch{x}\]</div>')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](math.md#noise)", None),
        ("[x](https://example.org)", None),
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](math.md#no-such-heading)", "no-such-heading"),
        ("[x](/absolute)", "/absolute"),
        ("[x](../conf)", "../conf"),
        ("[x][dmd2.no.such.name]", "dmd2.no.such.name"),
    ],
)
def test_a_broken_link_fails_the_build(text: str, said: str | None, tmp_path: Path):
    """With the settings of mkdocs.yml, on two pages."""
    pytest.importorskip("material")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    kept = ("site_name", "strict", "theme", "markdown_extensions", "validation")
    config = {key: settings[key] for key in kept} | {"plugins": ["search", "autorefs"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "math.md").write_text("# Page\n\n## Noise\n")
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{text}\n")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(tmp_path / "mkdocs.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) == (said is None), ended.stderr
    assert said is None or said in ended.stderr
