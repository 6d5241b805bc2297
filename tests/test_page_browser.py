"""Pages in a real browser: no error, no network, sliders and zoom, phone and desk, dark and light.

They are skipped where there is no chromium, or no playwright.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmd2.io.files import write_hashed_json
from dmd2.runs.groups import gather
from dmd2.runs.page.comparison_page import comparison_page
from dmd2.runs.page.run_page import run_page
from page_runs import write_page_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"

if not os.environ.get("DMD2_REQUIRE_CHROMIUM"):
    pytest.importorskip("playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        # Without a sandbox: the tests' user may be root, in a container.
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, and that of two, with a stranger's text wherever it may be."""
    folder = tmp_path_factory.mktemp("pages")
    for i, name in enumerate(("one", "other")):
        summary = write_page_run(folder / name, HOSTILE) | {"weights": HOSTILE.replace("/", "|")}
        write_hashed_json(folder / name / "summary.json", summary | {"seed": i})
        (folder / name / "report.html").write_text(run_page(folder / name, summary))
    page = comparison_page(gather(folder), HOSTILE, [f"failed: {HOSTILE}"])
    (folder / "comparison.html").write_text(page)
    found = {"run": folder / "one" / "report.html", "comparison": folder / "comparison.html"}
    for i, lr in enumerate((1e-4, 1e-3, 1e-2)):
        run = folder / "sweep" / str(i)
        summary = write_page_run(run, "e", lr=lr, loss=("a", "a", HOSTILE)[i])
        write_hashed_json(
            run / "summary.json", summary | {"metrics": {"rfd": 1.0 + i}, "weights": "e"}
        )
    (folder / "sweep.html").write_text(comparison_page(gather(folder / "sweep"), "sweep", []))
    return found | {"sweep": folder / "sweep.html"}


def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> tuple[Any, list]:
    """The page when its curves are ready, and what it did that it must not."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(300_000)  # of no concern here, and a browser may wait for its turn
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url[:99]) if asks(request) else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-curves=ready]", timeout=300_000)
    page.locator(".main").scroll_into_view_if_needed()  # curves are drawn when they are seen
    page.wait_for_selector(".main .nsewdrag", timeout=300_000, state="attached")
    return page, wrong


def asks(request: Any) -> bool:
    """Whether a request leaves the page; pictures lie inside."""
    return not request.url.startswith(("data:", "blob:")) and not request.is_navigation_request()


@pytest.mark.parametrize("name", ["run", "comparison", "sweep"])
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_a_page_fits_its_window_and_does_nothing_that_it_must_not(
    name: str, width: int, scheme: str, browser: Any, pages: dict[str, Path]
) -> None:
    page, wrong = opened(browser, pages[name], width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 29)"}[scheme]
    scrolled = "[...document.querySelectorAll('*')].filter((one) => one.scrollWidth > "
    scrolled += "one.clientWidth && getComputedStyle(one).overflowX === 'auto')"
    shadows = f"{scrolled}.map((one) => [one.tabIndex, getComputedStyle(one).backgroundAttachment])"
    found = page.evaluate(shadows)
    assert all(one == [0, "local, local, scroll, scroll, scroll"] for one in found)
    assert found or width > 400
    page.emulate_media(media="print")
    assert not page.is_visible(".controls")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it prints whole"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == "rgb(255, 255, 255)"
    assert page.evaluate("window.hacked") is None and not wrong
    page.close()


@pytest.mark.parametrize("steps", [[0], [7], [0, 5]])
def test_a_reference_is_a_line_beside_a_lone_score_too(
    steps: list[int], browser: Any, pages: dict[str, Path]
) -> None:
    page, _ = opened(browser, pages["run"])
    lines = "lines: [{name: 'real', y: 1.5}], title: 'rfd'"
    chart = f"{{curves: [{{x: {steps}, y: {[1.0] * len(steps)}}}], {lines}}}"
    (x,) = page.evaluate(f"references({chart}).map((one) => one.x)")
    assert x[0] < x[-1] and x[0] <= min(steps) and x[-1] >= max(steps)
    page.close()


def test_the_slider_of_samples_goes_by_keys(browser: Any, pages: dict[str, Path]) -> None:
    page, wrong = opened(browser, pages["run"])
    last = page.get_attribute("#grid-picture", "src")
    page.focus("#grid")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#grid-name") == "iteration 2"
    assert page.get_attribute("#grid-picture", "src") != last
    assert page.evaluate("document.getElementById('grid-picture').naturalWidth") == 20
    page.close()
    assert not wrong


def test_what_a_sweep_varied_is_a_chart_each_of_dots(browser: Any, pages: dict[str, Path]) -> None:
    page, wrong = opened(browser, pages["sweep"])
    for key, kind in (("lr", "log"), ("loss", "category")):
        page.get_by_label(f"curves of {key}", exact=True).scroll_into_view_if_needed()
        plot = f"document.querySelector('[aria-label=\"curves of {key}\"]')"
        page.wait_for_function(f"{plot}.layout?.xaxis.type === '{kind}'")
        assert page.evaluate(f"{plot}.layout.xaxis.title.text") == key
        assert page.evaluate(f"{plot}.data.map((one) => one.mode)") == ["markers"] * 3
        assert page.evaluate(f"{plot}.data.map((one) => one.y[0])") == [1, 2, 3]
    assert page.evaluate("window.hacked") is None and not wrong
    page.close()


def test_scores_by_class_are_bars_and_those_of_many_classes_are_counted(
    browser: Any, tmp_path: Path
) -> None:
    summary = write_page_run(tmp_path, "e")
    many = {"student, ema": {f"{i}/accuracy": i / 100 for i in range(100)}}
    for rows, kind, num in ((summary["by_class"], "bar", 3), (many, "histogram", 1)):
        path = tmp_path / f"{kind}.html"
        named = {"by_class": rows, "class_names": {"2": "<b>seal</b>"}}
        path.write_text(run_page(tmp_path, summary | named))
        page, wrong = opened(browser, path, 400, "dark")
        page.get_by_label("curves of accuracy by class").scroll_into_view_if_needed()
        plot = "document.querySelector('[aria-label=\"curves of accuracy by class\"]')"
        page.wait_for_function(f"{plot}.data?.length")
        assert page.evaluate(f"{plot}.data.map((one) => one.type)") == [kind] * num
        if kind == "bar":
            shown = page.locator(
                "[aria-label='curves of accuracy by class'] .xtick"
            ).all_text_contents()
            assert shown == ["0", "2 <b>seal</b>", "10"]
        page.close()
        assert not wrong


def test_a_lone_score_is_a_dot_amid_its_reference_lines(browser: Any, tmp_path: Path) -> None:
    summary = write_page_run(tmp_path, "e", num_rows=1)
    (tmp_path / "report.html").write_text(run_page(tmp_path, summary))
    page, wrong = opened(browser, tmp_path / "report.html")
    curve, *lines = page.evaluate("document.querySelector('.main .plot').data")
    assert "markers" in curve["mode"] and curve["x"] == [1] and curve["y"] == [100]
    assert [line["name"] for line in lines] == [
        "real, held out",
        "class gaussian",
        "teacher, 35 NFE",
    ]
    assert all(line["x"][0] < 1 < line["x"][-1] for line in lines)
    page.close()
    assert not wrong


def test_curves_zoom_smooth_and_take_log_axes(browser: Any, pages: dict[str, Path]) -> None:
    page, wrong = opened(browser, pages["run"])
    plot = "document.querySelector('.main .plot')"
    box = page.locator(".main .nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.25 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=5)
    page.mouse.up()
    page.wait_for_function(f"{plot}.layout.xaxis.range?.[1] < 40")
    assert page.evaluate(f"{plot}.layout.xaxis.range[0]") > 10
    before = page.evaluate(f"{plot}.data.length")
    page.focus("#smoothing")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{plot}.data.length") == before + 1  # the raw curve, faint
    for kind in ("linear", "log"):
        page.select_option("#scale", kind)
        assert page.evaluate(f"{plot}.layout.yaxis.type") == kind
    lines = page.evaluate(f"{plot}.data.filter((one) => one.line.dash).map((one) => one.name)")
    assert lines == ["real, held out", "class gaussian", "teacher, 35 NFE"]
    page.close()
    assert not wrong
