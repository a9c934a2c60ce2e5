"""A board's page as text: what stands in it, and that nothing of the data can act (test_page_browser: how it acts)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import boards
import pyarrow.parquet as pq
import pytest

from infosteer_bench.leaderboard.numbers import flips as flips_module
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.columns import BOARD
from infosteer_bench.leaderboard.numbers.costs import cost_rows
from infosteer_bench.leaderboard.numbers.row import Overlap, Row, number
from infosteer_bench.leaderboard.numbers.table import cells
from infosteer_bench.leaderboard.store import compact
from infosteer_bench.leaderboard.views.page import INDEX_FILE, build_page
from infosteer_bench.leaderboard.views.page import build as build_module
from infosteer_bench.leaderboard.views.page.build import FOLDER, SCRIPTS, TABLE_LIBRARY, script_json

LIBRARY_SHA256 = "38017a5586acd9c6eb6bbfe8b6938e1a25bdc717c5acfcb07e0c9d663282c59d"

FORBIDDEN = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\bfetch\(")


@pytest.fixture(scope="module")
def board_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards.write_board(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def board(board_dir: Path) -> Board:
    return boards.read_board(board_dir)


@pytest.fixture(scope="module")
def page(board: Board) -> str:
    files = build_page(board)
    assert set(files) == {INDEX_FILE}
    return files[INDEX_FILE]


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="board">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def place_of(rows: list[Row], method: str, task: str) -> int:
    (place,) = [place for place, row in enumerate(rows) if (row.method, row.task) == (method, task)]
    return place


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>&amp;", "\u2028\u2029", "\ud800", "a\\b\"c'", "é漢"])
def test_json_in_a_script_is_the_same_data_and_no_markup(text: str):
    written = script_json({text: [text, 1.5, None]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert written.encode("utf-8")
    assert json.loads(written) == {text: [text, 1.5, None]}


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_names_and_answers_do_not_become_markup(page: str):
    assert page.count("</script>") == 3
    assert boards.SCRIPT not in page
    assert boards.MODEL not in page
    data = data_of(page)
    assert data["models"] == [boards.MODEL]
    texts = [text for found in data["items"]["inline"].values() for text in found["texts"]]
    assert f"{boards.SCRIPT} </script> by sft" in texts


def test_the_policy_admits_the_pages_own_scripts_and_no_network(page: str):
    match = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert match
    policy = dict(part.strip().split(" ", 1) for part in match[1].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    assert not re.search(r"https?:|\*|connect-src", match[1])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}
    assert len(digests) == 2
    assert digests == {part for part in policy["script-src"].split() if part.startswith("'sha256-")}
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", page.split('<script type="application')[0])


def test_our_scripts_never_read_text_as_markup_or_code():
    found = {path.stem for path in (FOLDER / "js").glob("*.js")}
    assert found == set(SCRIPTS)
    for name in SCRIPTS:
        text = (FOLDER / "js" / f"{name}.js").read_text(encoding="utf-8")
        assert not FORBIDDEN.search(text)


def test_the_table_library_is_as_released_and_has_its_licence():
    library = (FOLDER / TABLE_LIBRARY).read_bytes()
    assert hashlib.sha256(library).hexdigest() == LIBRARY_SHA256
    assert "MIT" in (FOLDER / "vendor" / "dataTables.LICENSE.txt").read_text(encoding="utf-8")
    assert len(library) < 200_000


def test_the_page_holds_the_numbers_of_the_table(page: str, board: Board):
    shown = data_of(page)["rows"]
    assert len(shown) == len(board.rows)
    names = ("accuracy", "seed_std", "delta_vs_sft", "unparsed_rate")
    for row, one in zip(board.rows, shown, strict=True):
        values = cells(BOARD, row)
        assert [one.get(name, "") for name in ("model", "method", "task")] == [row.model, row.method, row.task]
        assert [number(one.get(name)) for name in names] == [values[name] for name in names]
        assert one.get("verdict", "") == row.verdict
        if row.versus is not None:
            assert list(map(number, one["delta_interval"])) == [values["delta_ci_low"], values["delta_ci_high"]]
    assert any(one.get("verdict") for one in shown)


def test_the_header_counts_verdicts_over_tasks(page: str, board):
    tasks = [row for row in board.rows if row.method == "infosteer-intervention" and not row.members]
    (found,) = [one for one in data_of(page)["results"] if one["method"] == "infosteer-intervention"]
    assert found["models"] == 1
    assert sum(found[verdict] for verdict in ("win", "tie", "loss")) == len(tasks) == 3
    assert found["win"] == sum(row.verdict == "win" for row in tasks) > 0
    middle = sorted(row.versus.detectable for row in tasks)[1]
    assert found["detectable"] == pytest.approx(100 * middle, abs=0.005)


def expected_flips(board_dir: Path, method: str, task: str, mix: str) -> list[tuple[Any, ...]]:
    """Item by item from the records: (seed, doc, won, target, answers and generations of both)."""
    items = {
        (item["cell"], item["doc_id"]): item
        for item in pq.read_table(board_dir / compact.ITEMS_FILE).to_pylist()
        if item["cell"].endswith(f"-{task}")
    }
    found: list[tuple[Any, ...]] = []
    for seed in (0, 1, 2):
        for doc in range(boards.ITEMS):
            own = "base-None-None" if method == "base" else f"{method}-{mix}-{seed}"
            ours, theirs = items[f"{own}-{task}", doc], items[f"sft-{mix}-{seed}-{task}", doc]
            won = [json.loads(one["correct"])["robust"] for one in (ours, theirs)]
            if won[0] != won[1]:
                answers = [
                    part
                    for one in (ours, theirs)
                    for part in (json.loads(one["extracted"])["robust"], one["generation"], one["finish_reason"])
                ]
                found.append((seed, doc, won[0], ours["target"], *answers))
    return found


def shown_flips(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    def text(place: int | None) -> str | None:
        one = None if place is None else found["texts"][place]
        if isinstance(one, list):
            assert len(one[0]) == flips_module.CHARACTERS < one[1] == len(boards.LONG)
            assert boards.LONG.startswith(one[0])
            return boards.LONG
        return one

    return [
        (
            *(found["seeds"][seed]["seed"], doc, won, text(target)),
            *(text(answer), text(written), "length" if cut else "stop"),
            *(text(other), text(theirs), "length" if cut_too else "stop"),
        )
        for seed, doc, won, target, answer, written, cut, other, theirs, cut_too in found["flips"]
    ]


@pytest.mark.parametrize(("method", "task"), [("infosteer-intervention", "gsm8k"), ("base", "boolq")])
def test_flips_are_those_of_the_records(page: str, board, board_dir: Path, method: str, task: str):
    found = data_of(page)["items"]["inline"][str(place_of(board.rows, method, task))]
    expected = expected_flips(board_dir, method, task, boards.TASKS[task])
    assert shown_flips(found) == expected
    assert {flip[2] for flip in expected} == {0, 1}
    for seed in found["seeds"]:
        assert seed["n_items"] == boards.ITEMS
        assert [seed["won"], seed["lost"]] == [
            sum(flip[0] == seed["seed"] and flip[2] == won for flip in expected) for won in (1, 0)
        ]
    assert "sample" not in found


def test_every_compared_task_row_and_no_other_has_items(page: str, board):
    compared = [place for place, row in enumerate(board.rows) if row.delta_vs_sft is not None and not row.members]
    assert data_of(page)["items"]["rows"] == compared
    assert len(compared) == 3 * len(boards.TASKS)


def test_an_sft_row_that_was_not_run_is_no_reference(board, board_dir: Path):
    """base, which is trained on no mix, is compared with the one sft row that was measured."""
    rows = board.rows
    waiting = replace(rows[place_of(rows, "sft", "boolq")], mix="another", by_seed={}, scores={}, cells={})
    base = place_of(rows, "base", "boolq")
    expected = board.flips[base]
    found = replace(board, rows=[waiting, *rows]).flips[base + 1]
    assert expected["flips"]
    assert found == expected


def test_very_many_flips_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch, board, board_dir: Path):
    all_of_it = board.flips
    monkeypatch.setattr(flips_module, "FLIPS", 90)
    monkeypatch.setattr(flips_module, "SAMPLES", (5, 3, 2))
    some = replace(board).flips
    assert some.keys() == all_of_it.keys()
    counts = [sum(len(flips["flips"]) for flips in one.values()) for one in (some, all_of_it)]
    assert counts[0] <= 90 < counts[1]
    for place, found in some.items():
        every = all_of_it[place]
        assert found["seeds"] == every["seeds"]
        assert set(shown_flips(found)) <= set(shown_flips(every))
        for number_of_seed, seed in enumerate(found["seeds"]):
            for won, name in ((1, "won"), (0, "lost")):
                docs = [flip[1] for flip in found["flips"] if flip[0] == number_of_seed and flip[2] == won]
                assert len(docs) == min(seed[name], found.get("sample", seed[name]))
        if "sample" not in found:
            assert found == every
    assert any("sample" in found for found in some.values())


def test_many_items_lie_beside_the_page(monkeypatch: pytest.MonkeyPatch, page: str, board, board_dir: Path):
    monkeypatch.setattr(build_module, "INLINE_CHARACTERS", 100)
    files = build_page(board)
    inline = data_of(page)["items"]["inline"]
    assert set(files) == {INDEX_FILE, *(f"items/{place}.js" for place in inline)}
    assert data_of(files[INDEX_FILE])["items"] == {**data_of(page)["items"], "files": True, "inline": {}}
    for place, found in inline.items():
        text = files[f"items/{place}.js"]
        assert text.startswith(f"boardItems({place},{{")
        assert json.loads(text.removeprefix(f"boardItems({place},").removesuffix(");\n")) == found


def test_the_same_records_give_the_same_bytes(page: str, board_dir: Path):
    assert build_page(boards.read_board(board_dir))[INDEX_FILE] == page


def test_a_board_without_items_has_a_page(board):
    data = data_of(build_page(replace(board, items=None))[INDEX_FILE])
    assert data["items"] == {"rows": [], "files": False, "inline": {}}
    assert data["rows"][0]["accuracy"] == pytest.approx(20.0)


def test_reported_numbers_alone_have_a_page():
    row = Row("m", "llama", "sft", "", "commonsense", "boolq", "ID", reported=68.5, notes=("reported",))
    records = compact.BoardRecords(name="paper", grid=None, cells=(), checkpoints=())
    data = data_of(build_page(Board(records, [row]))[INDEX_FILE])
    assert data["rows"][0]["reported"] == 68.5
    assert "accuracy" not in data["rows"][0]
    assert data["warnings"][0][0][1].startswith("Nothing on this page was measured here")
    assert not data["standings"]
    assert "deltas.csv" not in dict(data["files"])


def test_the_mechanism_comes_from_the_records(tmp_path: Path, page: str):
    assert data_of(page)["mechanism"] is None
    folder = boards.write_board(tmp_path, mechanism=True)
    data = data_of(build_page(boards.read_board(folder))[INDEX_FILE])
    rows = data["mechanism"]["rows"]
    assert len(rows) == 3 * 2 * 3
    changes = {row["method"]: row["entropy_change"] for row in rows if row["seed"] == 1}
    assert changes["sft"] is None
    assert changes["infosteer-intervention"] == pytest.approx(0.02)
    assert rows[0]["values"]["low_share"] == 0.25
    assert data["mechanism"]["correlations"][-1]["n"] == 12
    assert "mechanism.csv" in dict(data["files"])


def test_doubtful_items_have_badges(board):
    place = place_of(board.rows, "sft", "gsm8k")
    audited = list(board.rows)
    audited[place] = replace(audited[place], overlap=Overlap(items=40, exact=1, masked=3, repeated=2))
    shown = data_of(build_page(Board(board.records, audited))[INDEX_FILE])["rows"]
    assert shown[place]["overlap"] == {"items": 40, "exact": 1, "masked": 3, "repeated": 2}
    assert sum("overlap" in row for row in shown) == 1


def test_one_seed_is_a_warning_and_a_missing_number_no_zero(tmp_path: Path):
    folder = boards.write_board(tmp_path, seeds=(4,), model="chat-model")
    data = data_of(build_page(boards.read_board(folder))[INDEX_FILE])
    assert ["b", "One seed:"] in [parts[0] for parts in data["warnings"]]
    assert ["b", "Instruction-tuned, not a base model:"] in [parts[0] for parts in data["warnings"]]
    assert all("seed_std" not in row and "verdict" not in row for row in data["rows"])
    assert all("option_rank" not in row for row in data["rows"])


def test_costs_are_ratios_to_the_matching_sft_checkpoints(board):
    records, rows = board.records, board.rows
    found = {rows[line["row"]].method: line for line in board.costs}
    assert set(found) == set(boards.METHODS) - {"base"}
    assert found["sft"]["step_time_s_ratio"] == 1.0
    assert found["infosteer-intervention"] == {
        "row": place_of(rows, "infosteer-intervention", "mean:all"),
        "checkpoints": 6,
        "step_time_s": 0.3,
        "step_time_s_ratio": 1.5,
        "peak_memory_bytes": float(f"{2**30:.4g}"),
        "peak_memory_bytes_ratio": 1.0,
    }
    elsewhere = tuple(
        one.model_copy(update={"provenance": {"device": "another"}}) if one.method == "infosteer-intervention" else one
        for one in records.checkpoints
    )
    lines = cost_rows(replace(records, checkpoints=elsewhere), rows)
    assert "infosteer-intervention" not in {rows[line["row"]].method for line in lines}
