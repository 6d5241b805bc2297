"""The page of a run: which curves there are, in how many points, what is best, and that text stays
text.
"""

import json
import re
from math import nan
from pathlib import Path

import pytest
from PIL import Image

from dmd2.data.digits import TextDigits
from dmd2.data.images import Images
from dmd2.runs.page.by_class import class_charts
from dmd2.runs.page.curves import GROUPS, MAX_POINTS, charts, group_of, points_of, thinned
from dmd2.runs.page.glossary import LOGGED, meaning_of_logged, meaning_of_score
from dmd2.runs.page.pictures import MAX_GRID_BYTES, shown_grids
from dmd2.runs.page.run_page import run_page, score_table
from dmd2.runs.report import names_of_classes
from docs_hooks import website
from page_runs import SUMMARY, write_page_run

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=hacked=1>'\""


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("score/raw/fid_10k", "Quality"),
        ("generator/gan_to_dm", "Discriminator"),
        ("critic/accuracy_real", "Discriminator"),
        ("generator/gradient_norm", "Generator"),
        ("critic/loss_denoising", "Critic"),
        ("watch/spread", "Health"),
        ("health/gan_won", "Health"),
        ("train/skipped_updates", "Health"),
        ("speed/peak_memory_bytes", "Speed and memory"),
        ("something/else", "Other"),
    ],
)
def test_a_number_is_in_the_group_where_a_person_looks_for_it(key: str, group: str) -> None:
    assert group_of(key) == group


def test_prefixes_which_dashboards_group_panels_by_are_the_groups_of_the_page() -> None:
    measured = website.metrics_page.ranges()  # of two experiments' logs
    found: dict[str, set[str]] = {}
    for key in [*measured, "score/raw/fid", "speed/images_seen", "health/gan_won"]:
        found.setdefault(group_of(key), set()).add(key.partition("/")[0])
    assert found == {
        "Quality": {"score"},
        "Discriminator": {"generator", "critic"},
        "Generator": {"generator"},
        "Critic": {"critic"},
        "Health": {"watch", "health", "train"},
        "Speed and memory": {"speed"},
    }


def test_curves_that_are_read_against_each_other_share_a_chart() -> None:
    row = {"step": "1", "score/ema/fid": "3", "score/raw/fid": "4", "critic/accuracy_real": "1"}
    found = charts([row | {"critic/accuracy_fake": "0", "generator/loss_dm": "2"}])
    shown = {one["title"]: [curve["name"] for curve in one["curves"]] for one in found}
    assert shown == {
        "fid": ["ema", "raw"],
        "critic/accuracy": ["real", "fake"],
        "generator/loss_dm": [""],
    }
    order = [list(GROUPS).index(one["group"]) for one in found]
    assert order == sorted(order)


def test_thinning_keeps_ends_peaks_and_gaps_in_a_bounded_number_of_points() -> None:
    points = [(i, float(i % 7)) for i in range(100_003)]
    points[31_415], points[77_777] = (31_415, 1e9), (77_777, None)
    found = thinned(points)
    assert len(found) <= MAX_POINTS and found[0] == points[0] and found[-1] == points[-1]
    assert (31_415, 1e9) in found and (77_777, None) in found
    assert [step for step, _ in found] == sorted({step for step, _ in found})
    assert thinned(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_what_is_no_finite_number_of_a_log_is_a_gap_and_a_torn_row_is_left_out() -> None:
    rows = [{"step": "1", "a": "2"}, {"step": "2", "a": "nan"}, {"step": "3", "a": "1e"}]
    torn = [{"step": "", "a": "5"}, {"step": "4", "a": None}, {"step": "5", "a": ""}]
    assert points_of([*rows, *torn]) == {"a": [(1, 2.0), (2, None), (3, None)]}


def test_the_best_of_each_score_is_marked_by_its_direction_and_real_data_do_not_compete() -> None:
    found = score_table(SUMMARY)
    marked = {
        column.name: [row.label for row in found.rows if row.cells[i].is_best]
        for i, column in enumerate(found.columns)
    }
    assert marked == {"rfd": ["teacher, 35 NFE"], "near_copies": [], "recall": ["student, ema"]}
    assert (
        score_table(SUMMARY | {"students": {"ema": {"rfd": nan}}}).rows[-1].cells[0].text == "nan"
    )


def test_every_score_that_a_protocol_has_and_every_number_of_a_log_is_explained() -> None:
    assert meaning_of_score("fid_50k").text.endswith("of 50k samples")
    assert meaning_of_score("fid_50k").arrow == "↓" and meaning_of_score("is").arrow == "↑"
    assert meaning_of_score("of_a_user") == ("", "")
    assert meaning_of_logged("generator/score_gap").text and not meaning_of_logged("x/y").text
    assert all(re.compile(pattern) for pattern in LOGGED)


def test_text_of_strangers_stays_text(tmp_path: Path) -> None:
    summary = write_page_run(tmp_path / "<b>run", HOSTILE)
    page = run_page(tmp_path / "<b>run", summary)
    # The page's own: its data, its library, its code; only the last is run.
    assert (
        len(re.findall("<script", page)) == 3 and "<img src=x" not in page and "<b>run" not in page
    )
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    names = [c["name"] for one in json.loads(data[1])["charts"] for c in one["curves"]]
    assert HOSTILE.replace("/", "|") in names
    assert "default-src &#39;none&#39;" in page and "http" not in page.replace("http-equiv", "")


def test_a_page_is_bounded_however_many_pictures_and_rows_there_are(tmp_path: Path) -> None:
    summary = write_page_run(tmp_path / "run", "e", num_rows=3000, num_grids=60, size=200)
    grids = shown_grids(tmp_path / "run")
    assert (grids[0]["iteration"], grids[-1]["iteration"]) == ("1", "60")
    assert sum(len(one["picture"]) for one in grids) < 1.4 * MAX_GRID_BYTES
    assert len(run_page(tmp_path / "run", summary)) < 8 * 2**20


def test_a_run_without_scores_shows_its_pictures_and_without_a_log_its_configuration(
    tmp_path: Path,
) -> None:
    unscored = {name: {} for name in ("metrics", "students", "teacher", "floor", "baselines")}
    summary = write_page_run(tmp_path, "e") | unscored | {"best": {}, "by_class": {}, "primary": ""}
    page = run_page(tmp_path, summary)
    assert 'id="scores"' not in page and 'id="grid-picture"' in page and 'id="curves"' in page
    assert page.count("What each sampling step") == 2  # a caption, and a label
    (tmp_path / "metrics.csv").unlink()
    page = run_page(tmp_path, summary)
    assert 'id="curves"' not in page and "All of it (config.yaml)" in page


def test_scores_by_class_are_bars_of_the_student_beside_teacher_and_real_data() -> None:
    (found,) = class_charts(SUMMARY)
    assert (found["title"], found["kind"], found["arrow"]) == ("accuracy by class", "bars", "↑")
    shown = {bars["name"]: (bars["x"], bars["y"]) for bars in found["curves"]}
    assert list(shown) == ["real, held out", "teacher, 35 NFE", "student, ema"]
    assert shown["student, ema"] == (["0", "2", "10"], [0.95, 0.99, 0.7])
    names = {"2": "<b>seal</b>", "10": "a" * 300}
    (named,) = class_charts(SUMMARY | {"class_names": names})
    assert named["curves"][-1]["x"] == ["0", "2 <b>seal</b>", "10 " + "a" * 13]
    many = {f"{i}/accuracy": i / 100 for i in range(100)}
    (found,) = class_charts(SUMMARY | {"by_class": {"student, ema": many}})
    assert found["kind"] == "counts" and found["axis"].startswith("accuracy, and how many")
    assert len(found["curves"][0]["y"]) == 100
    for nothing in (None, {}, {"student, ema": {"0/accuracy": 1.0}}):
        assert class_charts(SUMMARY | {"by_class": nothing}) == []
    assert not class_charts({key: value for key, value in SUMMARY.items() if key != "by_class"})


def test_classes_are_called_as_the_data_call_them_and_else_by_their_number(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "source" / name / "0.png")
    common = {"batch_size": 2, "seed": 0}
    folder = Images(
        tmp_path / "source", resolution=8, cache=tmp_path / "cache", num_classes=3, **common
    )
    captioned = TextDigits([f"a {i}" for i in range(10)], **common)
    for data, names in ((folder, {"0": "ant", "1": "bee"}), (captioned, {})):
        data.prepare_data()
        data.setup()
        scores = {"student, ema": {f"{i}/accuracy": 1.0 for i in range(data.num_classes)}}
        assert names_of_classes(data, scores) == names
    assert names_of_classes(folder, {"student, ema": {"1/accuracy": 1.0}}) == {"1": "bee"}


def test_a_verdict_on_health_is_shown_with_its_reason_and_remedy(tmp_path: Path) -> None:
    verdict = {"name": "gan_won", "since": 20, "until": None, "reason": "why", "remedy": "what"}
    summary = write_page_run(tmp_path, "e")
    health = {"state": "unhealthy", "verdicts": [verdict]}
    page = run_page(tmp_path, summary | {"health": health})
    assert '<span class="badge unhealthy">' in page and "since iteration 20" in page
    assert "why." in page and "what." in page
    assert "verdicts" not in run_page(tmp_path, summary).partition("<body>")[2]
