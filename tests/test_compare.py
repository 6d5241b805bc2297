"""The comparison of runs: what is averaged, what is apart, and what is left out by name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dmd2.evaluation import pictures
from dmd2.evaluation.health import state_in_words
from dmd2.evaluation.health.monitor import TOO_SHORT
from dmd2.io.files import write_hashed_json
from dmd2.runs.compare import table, write_comparison
from dmd2.runs.groups import gather
from dmd2.runs.health import health_of
from dmd2.runs.markdown import aligned
from dmd2.runs.page.comparison_page import comparison_charts, pictures as pictures_of, varied_charts
from page_runs import write_page_run

SUMMARY = {
    "status": "completed",
    "experiment": "e",
    "metrics": {"rfd": 1.0},
    "primary": "rfd",
    "floor": {},
    "baselines": {},
    "teacher": {"1": {"rfd": 2.0}},
    "students": {},
}
CONFIG = {
    "seed": 0,
    "pairs": None,
    "trainer": {"precision": "32-true"},
    "name": "e",
    "max_iterations": 10,
    "teacher": {"weights": "a.safetensors"},
    "metric": {"num_samples": 100},
    "data": {"seed": 0},
    "optimizer": {"lr_factor": {"total": 10}},
    "paths": {"run": "here"},
}


def write_run(folder: Path, config: dict[str, object] | None = None, **summary: object) -> None:
    write_hashed_json(folder / "summary.json", SUMMARY | summary)
    OmegaConf.save(OmegaConf.create(CONFIG | (config or {})), folder / "config.yaml")


BAD = {
    "another metric": json.dumps(SUMMARY | {"metrics": {"kid": 1.0}, "primary": "kid"}),
    "nan": json.dumps(SUMMARY | {"metrics": {"rfd": float("nan")}}),
    "incomplete": "{}",
    "a list": "[]",
    "torn": json.dumps(SUMMARY)[:30],
    "nested": "[" * 100_000,
    "edited": json.dumps(SUMMARY | {"sha256_of_content": "0" * 64}),
    "health of text": json.dumps(SUMMARY | {"health": "x"}),
    "health of a number": json.dumps(SUMMARY | {"health": 5}),
    "a number beyond floats": json.dumps(SUMMARY | {"metrics": {"rfd": 10**400}}),
    "a teacher of nothing": json.dumps(SUMMARY | {"teacher": {"1": None}}),
    "a score that is a list": json.dumps(SUMMARY | {"teacher": {"1": {"modes": []}}}),
    "a floor of nothing": json.dumps(SUMMARY | {"floor": {"modes": None}}),
    "a baseline of a number": json.dumps(SUMMARY | {"baselines": {"x": 7}}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_run_is_named_and_left_out_of_the_table(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0")
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / "summary.json").write_text(BAD[what])
    found = gather(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("left out: ") and str(tmp_path / "bad") in line
    assert "| e | 1 | 1 |" in table(found)


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": as_fifo,
    "a device": as_endless,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("name", ["summary.json", "config.yaml"])
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_named_and_that_run_is_left_out(
    what: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0")
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / name).unlink()
    NO_FILES[what](tmp_path / "bad" / name)
    found = gather(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"left out: {tmp_path}/bad/{name} is damaged: it is ")
    assert "| e | 1 | 1 |" in table(found)


CONFIGS = {
    "empty": "",
    "a number": "12",
    "a list": "[1]",
    "of other keys": "x: 1",
    "aliases": "a: &a [1]\nb: [*a, *a]",
    "itself": "a: &x [*x]",
    "deep": "[" * 5000,
    "torn": "a: [",
    "no text": "\x00",
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_run_with_a_bad_configuration_is_named_and_left_out(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0")
    write_run(tmp_path / "bad")
    (tmp_path / "bad" / "config.yaml").write_text(CONFIGS[what])
    found = gather(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"left out: {tmp_path}/bad/config.yaml is damaged")
    assert "| e | 1 | 1 |" in table(found)


LOGS = {
    "a byte order mark": ("\ufeffstep,x\n1,2.0\n", None),
    "a last row cut off": ("step,x,y\n1,2.0,3.0\n2,", None),
    "no step": ("x\n1\n", "no column `step`"),
    "no number": ("step,x\n1,2.0\n2,dog\n3,1.0\n", "at line 3"),
    "a row cut off": ("step,x,y\n1,2.0\n2,1.0,1.0\n", "at line 2"),
}


@pytest.mark.parametrize("what", LOGS)
def test_damage_of_a_log_is_named_with_its_line(what: str, tmp_path: Path) -> None:
    content, said = LOGS[what]
    (tmp_path / "metrics.csv").write_text(content)
    if said is None:
        assert health_of(tmp_path)
    else:
        with pytest.raises(ValueError, match=rf"metrics.csv is damaged.*{said}"):
            health_of(tmp_path)


def test_a_person_may_edit_a_summary_by_taking_its_hash_out(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    (tmp_path / "0" / "summary.json").write_text(json.dumps(SUMMARY | {"metrics": {"rfd": 3.0}}))
    assert "| e | 1 | 3 |" in table(gather(tmp_path))


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"max_iterations": 20, "optimizer": {"lr_factor": {"total": 20}}}, ["max_iterations"]),
        ({"teacher": {"weights": "b.safetensors"}}, ["teacher.weights"]),
        ({"metric": {"num_samples": 50}, "new": 1}, ["new", "metric.num_samples"]),
        # Of the callbacks this one trains.
        ({"callbacks": {"alignment": {"decay": 0.9}, "x": 1}}, ["callbacks.alignment.decay"]),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_rows_apart_and_say_in_what(
    config: dict[str, object], names: list[str], tmp_path: Path
) -> None:
    own = {"seed": 1, "data": {"seed": 1}, "paths": {"run": "there"}}
    write_run(tmp_path / "0")
    write_run(tmp_path / "1", own, metrics={"rfd": 3.0})
    write_run(tmp_path / "2", config, metrics={"rfd": 9.0}, teacher={"1": {"rfd": 4.0}})
    found = gather(tmp_path)
    assert [len(group.folders) for group in found] == [2, 1]
    for group in found:
        assert list(group.differences) == names
    lines = table(found)
    assert sum(line.startswith("| teacher, 1 NFE, of e ") for line in lines) == 2
    assert any("| 2 | 2 ± 1.4 |" in line for line in lines)


def test_of_runs_that_are_the_same_the_newest_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, (seed, rfd) in enumerate([(0, 1.0), (1, 2.0), (0, 5.0)]):
        own = {"seed": seed, "data": {"seed": seed}}
        write_run(tmp_path / str(i), own, seed=seed, metrics={"rfd": rfd})
    # The order of names is not that of time, and another length is another run.
    os.utime(tmp_path / "2" / "summary.json", (1, 1))
    write_run(tmp_path / "3", {"max_iterations": 5}, seed=0, metrics={"rfd": 9.0})
    found = table(gather(tmp_path))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"left out: {tmp_path / '2'}: other runs are the same, seed included"
    assert "| e max_iterations=10 | 2 | 1.5 ± 0.71 |" in found
    assert "| e max_iterations=5 | 1 | 9 |" in found


def test_of_unscored_runs_that_are_the_same_a_completed_one_counts(tmp_path: Path) -> None:
    for i, status in enumerate(("completed", "interrupted")):
        write_run(tmp_path / str(i), seed=0, metrics={}, status=status, iterations=5)
        os.utime(tmp_path / str(i) / "summary.json", (i, i))
    (group,) = gather(tmp_path)
    assert group.folders == [tmp_path / "0"]


def test_runs_that_were_not_scored_have_rows_of_their_own_and_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = {"state": "unhealthy", "verdicts": [{"name": "gan_won", "since": 2, "until": None}]}
    write_run(tmp_path / "0")
    for i, status in enumerate(("interrupted", "interrupted", "completed")):
        unscored = {"metrics": {}, "status": status, "iterations": 5, "health": ill}
        own = {"seed": i, "data": {"seed": i}} if status == "interrupted" else {"metric": None}
        write_run(tmp_path / f"unscored{i}", own, **unscored)
    error = "ValueError: \x1b[2J\ny"  # of another person's run: no terminal obeys it
    write_run(tmp_path / "untrained", metrics={}, status="failed", error=error, iterations=0)
    found = gather(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"left out: {tmp_path / 'untrained'} failed: ValueError: \\x1b[2J\\ny"
    assert [(group.is_scored, len(group.folders)) for group in found] == [
        *((True, 1), (False, 2), (False, 1))
    ]
    lines = table(found)
    assert any("| e (not scored, interrupted) " in line for line in lines)
    assert "2 of 2: gan_won" in lines[-2] and "e (not scored) " in lines[-1]
    files = write_comparison(found, "title", [], tmp_path / "out")
    page = files[-1].read_text()
    assert "e (not scored, interrupted)</th>" in page and "4 runs in 3 rows" in page
    unscored = [group for group in found if not group.is_scored]
    files = write_comparison(unscored, "title", [], tmp_path / "alone")
    assert [path.name for path in files] == ["README.md", "comparison.html"]
    assert '<h2 id="scores">Runs</h2>' in files[-1].read_text()


def test_names_say_calls_that_differ_and_not_what_follows_from_them(tmp_path: Path) -> None:
    scored = {"num_samples": 100, "suite": {"rfd": {"_target_": "m.Frechet", "of": "random"}}}
    uniform = {"view": {"_target_": "d.Uniform", "low": 0.02}}
    write_run(tmp_path / "0", {"metric": scored, "loss": uniform})
    none = {"metric": {"num_samples": 2, "suite": {}}}
    for i, mean in enumerate((0, -1)):
        own = none | {"loss": {"view": {"_target_": "d.Normal", "mean": mean}}}
        write_run(tmp_path / f"unscored{i}", own, metrics={}, iterations=5)
    assert [group.name for group in gather(tmp_path)] == [
        "e loss.view=d.Uniform",
        "e (not scored) loss.view=d.Normal loss.view.mean=0",
        "e (not scored) loss.view=d.Normal loss.view.mean=-1",
    ]


def test_jobs_of_a_sweep_are_named_by_their_choices_and_what_differs_besides(
    tmp_path: Path,
) -> None:
    runs = [("sid", 0.1, 10), ("sida", 0.2, 10), ("sida", 0.3, 10), ("no_gan", None, 20)]
    for i, (name, alpha, total) in enumerate(runs):
        loss = {"generator": {"_target_": f"l.{name}", "alpha": alpha, name: 1}}
        composed = {"choices": {"loss": name}, "overrides": [f"loss={name}", "seed=0", "+a.b=c=d"]}
        config = {"loss": loss, "max_iterations": total, "composed": composed}
        write_run(tmp_path / str(i), config, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == [
        "e loss=sid max_iterations=10 loss.generator.alpha=0.1",
        "e loss=sida max_iterations=10 loss.generator.alpha=0.2",
        "e loss=sida max_iterations=10 loss.generator.alpha=0.3",
        "e loss=no_gan max_iterations=20 loss.generator.alpha=null",
    ]
    # One of an older version does not say its choices: what they differ in is named in full.
    bad = {1: "a", "/etc": "x", "loss": [1], "data": "nope"}
    others = None, 5, {"choices": 5, "overrides": []}, {"choices": bad, "overrides": [[1], None]}
    for other in others:
        config = {"loss": {"generator": {"_target_": "l.sid"}}, "composed": other}
        write_run(tmp_path / "0", config, metrics={"rfd": 0})
        assert not any(" loss=" in group.name for group in gather(tmp_path))


def test_what_a_job_was_told_beside_its_choice_is_named(tmp_path: Path) -> None:
    for i, (name, weight) in enumerate((("dmd2", 0.1), ("dmd2_hinge", 0.5))):
        loss = {"generator": {"gan": {"_target_": name, "weight": weight}}}
        composed = {
            "choices": {
                "loss": name,
                "launcher": ("local", "slurm")[i],
                "metric": ("digits", "none")[i],
                "experiment": ("digits_dmd", "digits_dmd2")[i],
            },
            "overrides": ["launcher=l", *["++loss.generator.gan.weight=0.5"] * i],
        }
        write_run(tmp_path / str(i), {"loss": loss, "composed": composed}, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == [
        "e loss=dmd2",
        "e loss=dmd2_hinge loss.generator.gan.weight=0.5",
    ]


def test_a_choice_is_named_where_somebody_typed_it(tmp_path: Path) -> None:
    """What nobody typed, as data=digits, most rows of a table share."""
    for i, words in enumerate(([], ["loss=no_gan"], ["data=ring"], ["loss=dmd2"])):
        own = dict(word.split("=") for word in words)
        choices = {"loss": "dmd2", "data": "digits"} | own
        sections = {group: {"name": name} for group, name in choices.items()}
        config = sections | {"max_iterations": int(i == 3), "ema": i}
        composed = {"choices": choices, "overrides": [*words, f"max_iterations={int(i == 3)}"]}
        write_run(tmp_path / str(i), config | {"composed": composed}, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == [
        "e loss=dmd2 max_iterations=0",
        "e loss=no_gan max_iterations=0",
        "e data=ring loss=dmd2 max_iterations=0",
        "e loss=dmd2 max_iterations=1",
    ]


def test_a_choice_of_two_recipes_is_named_where_they_differ(tmp_path: Path) -> None:
    for i, (name, words) in enumerate((("dmd", []), ("dmd2", []), ("sid", ["loss=sid"]))):
        composed = {"choices": {"loss": name}, "overrides": words}
        config = {"loss": {"of": name}, "composed": composed}
        write_run(tmp_path / str(i), config, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == ["e loss=dmd", "e loss=dmd2", "e loss=sid"]


def test_a_choice_of_somebody_s_own_is_told_by_what_it_says(tmp_path: Path) -> None:
    """Its name may stand for anything."""
    for i in range(3):
        composed = {"choices": {"loss": "mine"}, "overrides": ["loss=mine", f"max_iterations={i}"]}
        config = {"loss": {"weight": 9 - i}, "max_iterations": i, "composed": composed}
        write_run(tmp_path / str(i), config, metrics={"rfd": i})
    names = [group.name for group in gather(tmp_path)]
    assert names == [f"e max_iterations={i} loss.weight={9 - i}" for i in range(3)]


def test_values_by_default_are_named_where_nothing_else_tells_runs_apart(tmp_path: Path) -> None:
    """As of two versions of one recipe."""
    for i in range(2):
        composed = {"choices": {"loss": "dmd2"}, "overrides": ["log_every=5"]}
        write_run(tmp_path / str(i), {"max_iterations": i, "composed": composed})
    assert {group.name for group in gather(tmp_path)} == {
        "e max_iterations=0",
        "e max_iterations=1",
    }


def test_what_was_typed_as_a_section_or_taken_out_is_named(tmp_path: Path) -> None:
    gan = {"_target_": "l.GAN", "weight": 0.1}
    for i, (name, words, own) in enumerate(
        (
            ("dmd2", [], gan),
            ("dmd2", ["~loss.gan"], None),
            ("dmd2_hinge", ["loss.gan={weight:0.5}"], gan | {"weight": 0.5}),
            ("dmd2_hinge", ["+loss.gan._target_=l.Mine"], gan | {"_target_": "l.Mine"}),
        )
    ):
        loss = {"dm": {"_target_": f"l.{name}"}} | ({"gan": own} if own else {})
        composed = {"choices": {"loss": name}, "overrides": [f"loss={name}", *words]}
        write_run(tmp_path / str(i), {"loss": loss, "composed": composed}, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == [
        "e loss=dmd2",
        "e loss=dmd2 ~loss.gan",
        "e loss=dmd2_hinge loss.gan=l.GAN loss.gan.weight=0.5",
        "e loss=dmd2_hinge loss.gan=l.Mine loss.gan.weight=0.1",
    ]


def test_what_differs_within_a_choice_is_named(tmp_path: Path) -> None:
    for i, (name, num) in enumerate((("digits", None), ("digits", 500), ("images", None))):
        data = {"seed": 0, "_target_": name} | ({"num_train": num} if num else {})
        typed = [f"+data.num_train={num}"] if num else []
        composed = {"choices": {"data": name}, "overrides": typed}
        write_run(tmp_path / str(i), {"data": data, "composed": composed}, metrics={"rfd": i})
    assert [group.name for group in gather(tmp_path)] == [
        "e data=digits",
        "e data=digits data.num_train=500",
        "e data=images",
    ]


def test_rows_say_what_their_runs_took(tmp_path: Path) -> None:
    for i, seconds in enumerate((10.0, 14.0)):
        took = {"training_seconds": seconds, "peak_memory_bytes": 3 * 2**29}
        write_run(tmp_path / str(i), {"seed": i, "data": {"seed": i}}, **took)
    write_run(tmp_path / "2", {"max_iterations": 5}, metrics={"rfd": 9.0})
    lines = table(gather(tmp_path))
    assert lines[0] == "| samples | runs | rfd | seconds | GiB |"
    assert lines[-2].endswith("| 2 | 1 ± 0 | 12 ± 2.8 | 1.5 ± 0 |")
    assert lines[-1].endswith("| 1 | 9 |  |  |")
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    page = write_comparison(gather(tmp_path), "title", [], tmp_path / "out")[-1].read_text()
    assert '<th scope="col">seconds</th>' in page and "<td>12 ± 2.8</td>" in page
    bad = {"training_seconds": -1.0}
    write_run(tmp_path / "3", **bad)
    assert len(gather(tmp_path)) == 2


def test_names_say_values_as_one_types_them(tmp_path: Path) -> None:
    for i, value in enumerate((None, True, [None, 0.5], "none")):
        write_run(tmp_path / str(i), {"own": value}, metrics={"rfd": float(i)})
    names = [group.name for group in gather(tmp_path)]
    assert names == ["e own=null", "e own=true", "e own=[null,0.5]", "e own=none"]


def test_curves_pictures_and_what_varied_of_runs_without_scores_are_on_the_page(
    tmp_path: Path,
) -> None:
    for name, lr, metrics in (("a", 1, {"rfd": 2.0}), ("b", 2, {})):
        summary = write_page_run(tmp_path / name, "e", lr=lr) | {"metrics": metrics}
        write_hashed_json(tmp_path / name / "summary.json", summary | {"weights": "e"})
    groups = gather(tmp_path)
    curves = {one["title"]: len(one["curves"]) for one in comparison_charts(groups)}
    assert curves["generator/loss_dm"] == 2
    assert [one["name"] for one in pictures_of(groups)] == ["e lr=1", "e (not scored) lr=2"]
    (varied,) = varied_charts(groups)
    assert [curve["name"] for curve in varied["curves"]] == ["e lr=1"]
    assert varied_charts(groups[1:]) == []


def test_names_stay_text_in_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "0", experiment="<img src=x>|\n# forged [a](b)")
    write_comparison(gather(tmp_path), "title", [], tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "<img" not in page and "\n#" not in page and page.startswith("# title\n")
    assert "| &lt;img src=x&gt;\\| \\# forged \\[a\\](b) | 1 | 1 |" in page


def test_a_table_says_which_runs_are_ill(tmp_path: Path) -> None:
    gone = {"name": "drifting", "since": 2, "until": 3}
    stands = {"name": "gan_won", "since": 2, "until": None}
    write_run(tmp_path / "0", health={"state": "healthy", "verdicts": [gone]})
    assert "| e | 1 | 1 | healthy |" in table(gather(tmp_path))
    write_run(tmp_path / "1", health={"state": "unhealthy", "verdicts": [gone, stands]})
    assert "| e | 2 | 1 ± 0 | 1 of 2: gan_won |" in table(gather(tmp_path))
    write_run(tmp_path / "1", health={"state": TOO_SHORT, "verdicts": []})
    said = state_in_words(TOO_SHORT)
    assert f"| e | 2 | 1 ± 0 | healthy; {said} |" in table(gather(tmp_path))


def test_runs_of_which_nobody_knows_the_configuration_are_not_averaged(tmp_path: Path) -> None:
    for name in ("0", "1"):
        write_run(tmp_path / name)
        (tmp_path / name / "config.yaml").unlink()
    assert [len(group.folders) for group in gather(tmp_path)] == [1, 1]


def test_rows_have_the_best_first_and_columns_one_width_on_the_console(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {"max_iterations": 5}, experiment="a|b", metrics={"rfd": 30.25})
    write_run(tmp_path / "1", metrics={"rfd": 4.0, "of_one_run": 1.0})
    lines = aligned(table(gather(tmp_path)))
    assert len({len(line) for line in lines}) == 1
    assert lines[-2].startswith("| e ") and lines[-1].startswith("| a|b ")


@pytest.mark.parametrize(("values", "scale"), [([1.6, 1.8], "linear"), ([0.5, 60.0], "log")])
def test_scores_are_dots_with_ticks_to_read(
    values: list[float], scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pictures.plt, "close", lambda figure: None)
        pictures.dots({"a": values, "b": [2.0]}, "rfd", tmp_path / "scores.png")
    axis = pictures.plt.gcf().axes[0]
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert axis.get_xscale() == scale and len(labels) > 2 and not axis.patches
    assert all(float(label.replace("\N{MINUS SIGN}", "-")) is not None for label in labels if label)
    pictures.plt.close("all")


@pytest.mark.filterwarnings("error")
def test_a_plot_has_room_for_any_name(tmp_path: Path) -> None:
    sizes = []
    for name in ("a", "a" * 10_000, "$\\frac$ 漢字 \ud800\n\x00"):
        pictures.dots({name: [1.0]}, "$rfd$", tmp_path / "scores.png")
        sizes.append(pictures.plt.imread(tmp_path / "scores.png").shape)
    narrow, wide, odd = sizes
    assert wide[1] > 2 * narrow[1] and wide[0] == narrow[0] == odd[0]


def test_a_plot_of_very_many_rows_shows_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pictures.plt, "close", lambda figure: None)
        pictures.dots({str(i): [i] for i in range(2000)}, "rfd", tmp_path / "scores.png")
    axis = pictures.plt.gcf().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [str(i) for i in range(200)]
    assert axis.get_xlabel() == "rfd (lower is better; the first 200 of 2,000 rows)"
    pictures.plt.close("all")
