"""A board's page in a real browser, opened from disk: it sorts, filters, opens flipped items, and asks no network.

Needs playwright (`.[dev]`) and a Chromium on the PATH or in INFOSTEER_TEST_BROWSER; without one of them it is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boards
import pytest

from infosteer_bench.leaderboard import board_dirs, check, publish, rebuild
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.views.page import INDEX_FILE, build_page
from infosteer_bench.leaderboard.views.page import build as build_module

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

pytestmark = pytest.mark.integration

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MINUS = "\u2212"
ROWS = "#rows tbody tr"
BOARDS = Path(__file__).resolve().parents[2] / "leaderboards"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    named = os.environ.get("INFOSTEER_TEST_BROWSER")  # CI sets it, so that there the tests cannot be skipped
    path = named or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)}")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published board with its items in the page."""
    folder = tmp_path_factory.mktemp("inline")
    return publish(boards.write_run(folder / "run"), folder / "demo")


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its items beside the page, and with statistics of the key coefficients."""
    folder = tmp_path_factory.mktemp("lazy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "INLINE_CHARACTERS", 100)
        board = publish(boards.write_run(folder / "run", mechanism=True), folder / "demo")
        assert check(board) == []
    return board


@pytest.fixture
def watch(browser: Any) -> Iterator[Any]:
    """Opens pages and, at the end, finds fault with errors in the console, dialogs, and requests other than files."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    faults: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))

    def visit(board: Path, fragment: str = "") -> Any:
        page.goto((board / "index.html").as_uri() + fragment)
        return page

    visit.faults = faults
    yield visit
    assert faults == []
    context.close()


@pytest.mark.parametrize("kept", [board.name for board in board_dirs(BOARDS)])
def test_every_kept_board_has_a_page_that_works(watch: Any, kept: str, tmp_path: Path):
    """git keeps one of these pages; the others are written here, as the command `leaderboard` does."""
    board = tmp_path / kept
    shutil.copytree(BOARDS / kept, board, ignore=shutil.ignore_patterns(INDEX_FILE, "items"))
    rebuild(board)
    assert check(board) == []
    page = watch(board)
    expect(page.locator("h1")).to_have_text(kept)
    expect(page.locator(ROWS)).to_have_count(25)
    if kept != "paper":
        strict = page.locator("#rows thead th", has_text="Strict")
        expect(strict).to_have_count(0)
        page.get_by_label("with other filters").check()
        expect(strict).to_be_visible()
        assert len(numbers(column(page, "Legacy"))) > 20  # means over kept items have none
    page.locator(ROWS).get_by_role("button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def column(page: Any, title: str) -> list[str]:
    """The visible text of a column, first line only."""
    titles = [text.strip() for text in page.locator("#rows thead th").all_inner_texts()]
    (place,) = [place for place, text in enumerate(titles) if text.split("\n")[0] == title]
    cells = page.locator(f"{ROWS} td:nth-child({place + 1})").all_inner_texts()
    return [text.split("\n")[0].strip() for text in cells]


def numbers(texts: list[str]) -> list[float]:
    found = [re.search(r"[+-]?\d+(\.\d+)?", text.replace(MINUS, "-")) for text in texts]
    return [float(one[0]) for one in found if one]


def test_the_page_shows_names_as_text(watch: Any, inline: Path):
    page = watch(inline)
    expect(page.locator("h1")).to_have_text("demo")
    expect(page.locator("#facts")).to_contain_text(boards.MODEL)
    expect(page.locator("#heat .model")).to_have_text(boards.MODEL)
    assert page.locator("#heat b, #facts b, #rows img").count() == 0
    for section in ("differences", "forest", "all", "costs", "ranks", "remarks"):
        expect(page.locator(f"#{section}")).to_be_visible()
    expect(page.locator("#mechanism")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_the_mechanism_is_shown_where_it_was_measured(watch: Any, lazy: Path):
    section = watch(lazy).locator("#mechanism")
    expect(section).to_be_visible()
    expect(section.locator("#mechanism-plot g")).to_have_count(2 * 2 * 3)  # methods, mixes, seeds
    expect(section.locator("#correlation-table")).to_contain_text("all models and mixes")
    expect(section.locator("#mechanism-table tbody tr")).to_have_count(3 * 2)


def test_rows_sort_by_mouse_and_keyboard(watch: Any, inline: Path):
    page = watch(inline)
    head = page.locator("#rows thead th", has_text="Accuracy")
    assert head.get_attribute("aria-sort") is None
    head.locator("[tabindex]").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    rising = numbers(column(page, "Accuracy"))
    assert rising == sorted(rising)
    assert len(set(rising)) > 3
    head.click()
    expect(head).to_have_attribute("aria-sort", "descending")
    falling = numbers(column(page, "Accuracy"))
    assert falling == sorted(falling, reverse=True)
    assert falling != rising
    other = page.locator("#rows thead th", has_text="Against sft")
    other.click()
    expect(other).to_have_attribute("aria-sort", "ascending")
    gaps = column(page, "Against sft")
    assert numbers(gaps) == sorted(numbers(gaps))
    assert "" not in gaps[: len(numbers(gaps))]  # what is missing comes last


def test_rows_are_filtered(watch: Any, inline: Path):
    page = watch(inline)
    every = page.locator("#all .dt-info").inner_text()
    page.get_by_label("Method", exact=True).select_option(label="sft")
    assert set(column(page, "Method")) == {"sft"}
    page.locator("#table-controls").get_by_label("Task", exact=True).select_option(label="tasks only")
    assert column(page, "Task") == list(boards.TASKS)  # the grid's order
    page.get_by_label("Mix", exact=True).select_option(label="gsm8k")
    assert column(page, "Task") == ["gsm8k"]
    page.get_by_role("button", name="Reset").click()
    assert page.locator("#all .dt-info").inner_text() == every
    page.get_by_label("Verdict", exact=True).select_option(label="▲ win")
    found = column(page, "Verdict")
    assert found
    assert set(found) == {"win"}
    page.get_by_role("button", name="Reset").click()
    page.locator("#table-controls input[type=search]").fill("regularization boolq")
    assert column(page, "Task") == ["boolq"]
    page.locator("#table-controls input[type=search]").fill("no such words")
    expect(page.locator(ROWS)).to_have_text("No row fits these filters.")


@pytest.mark.parametrize("kind", ["inline", "lazy"])
def test_flipped_items_open_as_text(watch: Any, kind: str, request: pytest.FixtureRequest):
    board = request.getfixturevalue(kind)
    assert (board / "items").exists() == (kind == "lazy")
    page = watch(board)
    cell = page.get_by_role("button", name=re.compile("infosteer-intervention, gsm8k:")).first
    cell.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text("infosteer-intervention · gsm8k")
    flips = [
        (seed, doc)
        for seed in (0, 1, 2)
        for doc in range(boards.ITEMS)
        if boards.right("sft", seed, "gsm8k", doc) != boards.right("infosteer-intervention", seed, "gsm8k", doc)
    ]
    expect(dialog.get_by_role("status")).to_contain_text(f"of {len(flips)} flips")
    while dialog.get_by_role("button", name="Show more").is_visible():
        dialog.get_by_role("button", name="Show more").click()
    expect(dialog.locator("article")).to_have_count(len(flips))
    shown = dialog.locator("article header").all_inner_texts()
    for (seed, doc), text in zip(flips, shown, strict=True):
        assert text.startswith(f"item {doc} · seed {seed} ")
    hostile = dialog.locator("article", has_text="alert(1)").first
    expect(hostile.locator("pre").first).to_have_text(f"{boards.SCRIPT} </script> by sft")
    expect(hostile.locator("pre").last).to_have_text(f"{boards.SCRIPT} </script> by infosteer-intervention")
    assert dialog.locator("img, script, i").count() == 0
    expect(dialog.locator("article", has_text="characters in all").first).to_contain_text(f"{len(boards.LONG):,}")
    dialog.get_by_label("Direction").select_option(label="▼ right only in sft")
    lost = [(seed, doc) for seed, doc in flips if not boards.right("infosteer-intervention", seed, "gsm8k", doc)]
    expect(dialog.locator("article")).to_have_count(min(20, len(lost)))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).to_have_url((board / "index.html").as_uri())
    expect(cell).to_be_focused()


def test_a_row_and_an_item_have_an_address(watch: Any, lazy: Path):
    page = watch(lazy)
    page.get_by_role("button", name=re.compile("infosteer-intervention, gsm8k:")).first.click()
    link = page.get_by_role("dialog").locator("article a").nth(1)
    address = link.get_attribute("href")
    text = link.inner_text()
    page.goto("about:blank")
    page = watch(lazy, address)
    target = page.get_by_role("dialog").locator("article.target")
    expect(target).to_be_visible()
    expect(target.get_by_role("link")).to_have_text(text)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_items_that_were_left_behind_are_told(watch: Any, lazy: Path, tmp_path: Path):
    shutil.copy(lazy / "index.html", tmp_path / "index.html")
    page = watch(tmp_path)
    page.get_by_role("button", name=re.compile("infosteer-intervention, gsm8k:")).first.click()
    expect(page.get_by_role("dialog")).to_contain_text("is not beside this page")
    assert len(watch.faults) == 1
    assert "ERR_FILE_NOT_FOUND" in watch.faults.pop()


def test_a_mean_leads_to_its_tasks(watch: Any, inline: Path):
    page = watch(inline)
    page.get_by_role("button", name=re.compile("infosteer-intervention, mean all:")).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="piqa").click()
    expect(dialog.get_by_role("heading", level=2)).to_have_text("infosteer-intervention · piqa")


def write_page(folder: Path, rows: list[Row]) -> Path:
    """The page of rows alone, without records."""
    board = Board(BoardRecords(name="rows", grid=None, cells=(), checkpoints=()), rows)
    (folder / INDEX_FILE).write_text(build_page(board)[INDEX_FILE], encoding="utf-8")
    return folder


def row_of(method: str, mix: str, task: str, value: float | None, **more: Any) -> Row:
    seed = None if method == "base" else 0
    return Row(
        *("m", "llama", method, "", mix, task, "ID"),
        by_seed={} if value is None else {seed: value},
        **{"complete": True, **more},
    )


def test_mixes_that_share_a_task_have_a_line_each(watch: Any, tmp_path: Path):
    rows = [
        row_of(method, mix, task, 40 + place, delta_vs_sft=None if method == "sft" else 1.5, members=of_mean)
        for method in ("sft", "infosteer-lora")
        for mix, tasks in (("a", ("boolq", "piqa")), ("b", ("boolq", "gsm8k")))
        for place, (task, of_mean) in enumerate([*((task, ()) for task in tasks), ("mean:all", tasks)])
    ]
    page = watch(write_page(tmp_path, rows))
    expect(page.locator("#heat tbody tr:not(.model) th small")).to_have_text(["on a", "on b"])
    page.get_by_role("button", name=re.compile("infosteer-lora, mean all:")).first.click()
    parts = page.get_by_role("dialog").locator("table", has_text="verdict").locator("tbody tr")
    expect(parts).to_have_count(2)
    assert [text.split() for text in parts.all_inner_texts()] == [
        ["boolq", "40.00", "+1.50"],
        ["piqa", "41.00", "+1.50"],
    ]


def test_an_sft_row_that_was_not_run_is_no_reference(watch: Any, tmp_path: Path):
    rows = [row_of("base", "", "boolq", 40), row_of("sft", "a", "boolq", None), row_of("sft", "b", "boolq", 50)]
    page = watch(write_page(tmp_path, rows))
    page.get_by_role("button", name="m, base, boolq: open").click()
    texts = page.get_by_role("dialog").locator("tbody tr")
    expect(texts).to_have_count(1)
    assert [text.split() for text in texts.all_inner_texts()] == [["0", "40.00", "50.00", f"{MINUS}10.00"]]


def test_numbers_on_stand_in_data_are_marked(watch: Any, tmp_path: Path):
    rows = [
        row_of("sft", "a", "boolq", 40),
        row_of("infosteer-lora", "a", "boolq", 42, delta_vs_sft=2.0, stand_ins=True),
    ]
    page = watch(write_page(tmp_path, rows))
    assert column(page, "Accuracy") == ["40.00", "42.00*"]
    expect(page.locator("#heat .cell .value")).to_have_text("+2.0*")
    expect(page.locator("#heat .cell")).to_have_attribute("title", re.compile("on stand-in data"))
    expect(page.locator("#forest-plot")).to_contain_text("+2.00*")
    for place in ("#heat-legend", "#how"):
        expect(page.locator(place)).to_contain_text("partial, or on stand-in data (tested, not ranked)")


def test_the_page_says_what_detectable_means(watch: Any, inline: Path):
    page = watch(inline)
    for place in ("#results", "#how", "#forest-note", "#table-note"):
        expect(page.locator(place)).to_contain_text("a single test (p below 0.05, before Holm's correction)")
    page.get_by_role("button", name=re.compile("infosteer-intervention, gsm8k:")).first.click()
    card = page.locator("#detail dl.cards div", has_text="Detectable")
    expect(card).to_contain_text("a single test (p below 0.05, before Holm's correction) finds four times in five")


def test_the_theme_follows_the_system_and_can_be_chosen(watch: Any, inline: Path):
    page = watch(inline)
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(back)
    assert dark != light
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert (button.inner_text(), page.evaluate(back)) == ("Theme: light", light)
    button.click()
    assert (button.inner_text(), page.evaluate(back)) == ("Theme: dark", dark)
    page.reload()
    assert page.get_by_role("button", name="Theme").inner_text() == "Theme: dark"


def test_all_is_reached_with_tab_and_seen(watch: Any, inline: Path):
    page = watch(inline)
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, select, input, summary, [tabindex=\"0\"]')].filter("
        "(one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0).length"
    )
    seen: set[int] = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place, outline, on_body = page.evaluate(
            "[[...document.querySelectorAll('*')].indexOf(document.activeElement),"
            " getComputedStyle(document.activeElement).outlineStyle, document.activeElement === document.body]"
        )
        if not on_body:  # after the last element it is the browser's turn
            assert outline != "none"
            seen.add(place)
    assert len(seen) >= wanted
    assert wanted > 100


def test_a_narrow_page_does_not_scroll_sideways(watch: Any, inline: Path):
    page = watch(inline)
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.get_by_role("button", name=re.compile("infosteer-intervention, gsm8k:")).first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 400


def test_items_of_an_earlier_state_go(lazy: Path, tmp_path: Path):
    board = tmp_path / "demo"
    shutil.copytree(lazy, board)
    names = {f"items/{path.name}" for path in (board / "items").iterdir()}
    assert names <= set(check(board))  # they fit into the page now
    rebuild(board)
    assert check(board) == []
    assert not list((board / "items").iterdir())
