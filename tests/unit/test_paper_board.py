"""The board of reported numbers, its faults, and our numbers beside them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from infosteer_bench.commands.leaderboard import leaderboard_command
from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard import board_dirs, check, publish, rebuild
from infosteer_bench.leaderboard.numbers.columns import BOARD
from infosteer_bench.leaderboard.paper.board import is_paper, paper_files, paper_rows, rebuild_paper
from infosteer_bench.leaderboard.paper.reproduction import MEAN, find_entries, to_reproduction
from infosteer_bench.leaderboard.store.reported import commonsense_numbers, other_numbers, reported
from tests.measured import COMMONSENSE, METHODS, STEERED, MadeBoard
from tests.unit.test_leaderboard_publish import write_run

ROOT = Path(__file__).resolve().parents[2]
MODEL = "llama-3-8b"


def test_the_packaged_numbers_are_the_paper_s(data_root: Path):
    if not (data_root.parent / "paper").is_dir():
        pytest.skip("no reported numbers beside the data")
    for name in ("reported_commonsense.csv", "reported_other.csv"):
        ours = ROOT / "infosteer_bench/leaderboard/store/reported" / name
        assert ours.read_bytes() == (data_root.parent / "paper" / name).read_bytes()


def test_the_csv_has_every_column_and_no_accuracy():
    lines = list(csv.DictReader(io.StringIO(paper_files()["leaderboard.csv"])))
    assert list(lines[0]) == [column.name for column in BOARD]
    assert len(lines) == len(commonsense_numbers()) == 384
    for line in lines:
        assert (line["accuracy"], line["n_seeds"], line["complete"], line["verdict"]) == ("", "", "false", "")
        if line["method"] in METHODS:
            expected = reported(
                model=line["model"], method=line["method"], arm="", mix=line["mix"] or None, task=line["task"]
            )
            assert float(line["reported"]) == expected
    assert {row.family for row in paper_rows()} == {"qwen2", "llama", "gemma2"}


def test_the_page_says_that_nothing_was_measured_and_shows_all_tables():
    page = paper_files()["leaderboard.md"]
    assert "**Nothing on this page was measured here.**" in page
    for one in other_numbers():
        assert f"| {one.accuracy:.1f} |" in page
    assert page.count(" !)") == 10
    assert json.loads(paper_files()["provenance.json"])["measured_here"] is False


def test_the_kept_board_is_what_the_package_gives():
    assert check(ROOT / "leaderboards" / "paper") == []
    assert ROOT / "leaderboards" / "paper" in board_dirs(ROOT / "leaderboards")


@pytest.mark.parametrize("name", list(paper_files()))
def test_one_edited_digit_is_found(name: str, tmp_path: Path):
    rebuild_paper(tmp_path)
    assert check(tmp_path) == []
    text = (tmp_path / name).read_text()
    place = [match.start() for match in re.finditer(r"\d", text)][-3]
    (tmp_path / name).write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    assert check(tmp_path) == [name]
    rebuild(tmp_path)
    assert check(tmp_path) == []


def test_the_command_rebuilds_and_checks_it(tmp_path: Path, capsys):
    rebuild_paper(tmp_path / "paper")
    (tmp_path / "paper/leaderboard.md").unlink()
    options = argparse.Namespace(runs=None, output=tmp_path, check=True)
    assert leaderboard_command(options) == 1
    assert "paper: leaderboard.md" in capsys.readouterr().err
    assert leaderboard_command(argparse.Namespace(runs=None, output=tmp_path, check=False)) == 0
    assert leaderboard_command(options) == 0


def test_a_run_is_not_published_over_it(tmp_path: Path):
    rebuild_paper(tmp_path / "paper")
    with pytest.raises(UserError, match="paper's own numbers"):
        publish(write_run(tmp_path / "run"), tmp_path / "paper")
    assert is_paper(tmp_path / "paper")
    assert check(tmp_path / "paper") == []


# our numbers beside the paper's


def beside(**changes) -> MadeBoard:
    """The paper's Llama-3-8B, 1,000 items, three seeds that answer alike: near the reported numbers on boolq."""
    made = MadeBoard(tasks=COMMONSENSE, models=(MODEL,), items=1000, **changes)
    for method, share in zip(METHODS, (0.70, 0.74, 0.775, 0.90), strict=True):
        for seed in (None,) if method == "base" else (0, 1, 2):
            made.add(MODEL, method, seed, "boolq", np.arange(1000) < round(1000 * share))
    return made


def pair(made: MadeBoard, method: str, task: str, kind: str = "accuracy"):
    entry = next(one for one in find_entries(made.rows) if one.method == method)
    return next((one for one in getattr(entry, kind) if one.task == task), None)


def test_ours_and_theirs_side_by_side():
    made = beside()
    boolq = pair(made, "sft", "boolq")
    assert (boolq.ours, boolq.reported, boolq.inside, boolq.counted) == (pytest.approx(74.0), 74.6, True, True)
    far = pair(made, "infosteer-regularization", "boolq")
    assert (far.ours, far.reported, far.inside) == (pytest.approx(90.0), 76.5, False)
    gain = pair(made, "infosteer-intervention", "boolq", "gain")
    assert gain.ours == pytest.approx(3.5)
    assert gain.reported == pytest.approx(2.5)
    row = next(row for row in made.rows if (row.method, row.task) == ("infosteer-intervention", "boolq"))
    assert row.versus is not None
    assert gain.inside == (100 * row.versus.low <= 2.5 <= 100 * row.versus.high)
    assert [one.gain for one in find_entries(made.rows)][:2] == [(), ()]
    mean = pair(made, "sft", MEAN)
    assert mean.reported == pytest.approx(84.95)
    own = [row.accuracy or 0 for row in made.rows if row.method == "sft" and row.task in COMMONSENSE]
    assert mean.ours == pytest.approx(sum(own) / 8)
    assert mean.interval[0] < mean.ours < mean.interval[1]
    assert pair(made, "infosteer-intervention", MEAN, "gain").reported == pytest.approx(1.8625)


def test_the_page_counts_what_lies_inside():
    made = beside()
    page = to_reproduction(made.board)
    assert page is not None
    every = [
        (entry.method, one.task, one.inside)
        for entry in find_entries(made.rows)
        for one in entry.accuracy
        if one.task != MEAN
    ]
    assert len(every) == 32
    assert {(method, task) for method, task, inside in every if inside} == {
        *((method, "boolq") for method in METHODS[:3]),
        (STEERED[0], "siqa"),  # 80.1 of 1,000 items; reported 82.0 and 81.6
        (STEERED[0], "arc_challenge"),
    }
    assert "Accuracies: 5 of 32 reported numbers lie inside" in page
    assert "of 16 reported numbers" in page
    assert "| sft | boolq | 74.00 ± 0.00 | 71.28 to 76.72 | 74.60 | -0.60 | yes |" in page
    assert "7 of 96 steered cells" in page
    assert "95.5 in Tables 6 and 7" in page


def test_partial_and_stand_in_rows_are_shown_and_not_counted():
    made = beside()
    made.cells = [cell for cell in made.cells if (cell.method, cell.seed, cell.task) != ("sft", 2, "boolq")]
    made.add(MODEL, "base", None, "piqa", np.arange(1000) < 500, stand_ins=("piqa.json",))
    assert not pair(made, "sft", "boolq").counted
    assert not pair(made, "base", "piqa").counted
    assert not pair(made, "infosteer-intervention", "boolq", "gain").counted
    assert pair(made, "sft", MEAN) is None
    assert pair(made, "infosteer-intervention", MEAN) is not None
    assert pair(made, "infosteer-intervention", MEAN, "gain") is None
    page = to_reproduction(made.board) or ""
    assert "4 of 30 reported numbers lie inside our 95 % interval; 2 more are not counted" in page
    assert "| boolq | 74.00 ± 0.00 \\*" in page.replace("| sft ", "")


def test_without_items_nothing_is_called_inside():
    made = beside()
    made.items = {}
    assert pair(made, "sft", "boolq").inside is None
    assert "0 of 0 reported numbers" in (to_reproduction(made.board) or "")


def test_a_board_without_reported_rows_has_no_page():
    for made in (MadeBoard(tasks=COMMONSENSE, models=("mini-llama",)), MadeBoard(tasks=("gsm8k",), models=(MODEL,))):
        assert to_reproduction(made.board) is None


def test_the_page_comes_and_goes_with_the_board(tmp_path: Path):
    output = publish(write_run(tmp_path / "run", model=MODEL), tmp_path / "board")
    page = output / "reproduction.md"
    assert "beside the paper's numbers" in page.read_text()
    assert (output / "leaderboard.tex").is_file()
    assert (output / "figures/forest.svg").is_file()
    assert check(output) == []
    page.write_text(page.read_text().replace("4", "5", 1))
    assert check(output) == ["reproduction.md"]
    publish(write_run(tmp_path / "other", model="smollm2-135m"), tmp_path / "board")
    assert not page.exists()
    page.write_text("left over")
    assert check(output) == ["reproduction.md"]
    rebuild(output)
    assert check(output) == []
