"""From a run's folder to a board and back from the board's own records, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard import board_dirs, check, publish, rebuild
from infosteer_bench.leaderboard.store import finished
from infosteer_bench.leaderboard.store.compact import compacted, without_folders
from infosteer_bench.leaderboard.views.text import escape
from infosteer_bench.records import CellRecord, CheckpointRecord, samples_path, write_items, write_sealed

publish_module = sys.modules["infosteer_bench.leaderboard.publish"]
OUTPUTS = ("leaderboard.csv", "leaderboard.md", "leaderboard.tex", "deltas.csv", "ranks.csv", "provenance.json")
OUTPUTS += ("index.html", *(f"figures/{stem}.{ending}" for stem in ("deltas", "forest") for ending in ("svg", "png")))
RECORDS = ("records/board.json", "records/checkpoints.jsonl", "records/cells.jsonl", "records/items.parquet")


def write_run(
    folder: Path,
    *,
    n: int = 8,
    model: str = "smollm2-135m",
    arm: str = "",
    grid: bool = True,
    host: str = "alpha",
    time_s: float = 1.0,
    instruct: bool = False,
) -> Path:
    """A run of three methods on two tasks with items that give the scores."""
    for m, method in enumerate(("base", "sft", "infosteer-intervention")):
        for seed in (None,) if method == "base" else (0, 1):
            checkpoint = f"k{m}{seed}"
            CheckpointRecord(
                key=checkpoint,
                status="success",
                identity={"model": model},
                provenance={"host": host, "commit": "abc", "command": f"run --models /home/{host}/w/smol", "t": time_s},
                model=model,
                family="llama",
                method=method,
                arm=arm if m == 2 else "",
                mix=None if seed is None else "commonsense",
                seed=seed,
                weight_digest=f"w{m}{seed}",
                path=f"/home/{host}/w/smol" if seed is None else f"weights/{checkpoint}",
                data={} if seed is None else {"missing": ["hellaswag"]},
                training={}
                if seed is None
                else {"steps": 12, "rows": 96, "time_s": time_s, "warnings": ["warm-up is long"]},
            ).save(folder)
            for task in ("boolq", "piqa"):
                write_cell(
                    folder, checkpoint, task, n=n, right=m + 2 + (seed or 0), model=model, method=method, seed=seed,
                    arm=arm if m == 2 else "", time_s=time_s, provenance={"host": host},
                )  # fmt: skip
    if grid:
        content = {
            "name": "toy",
            "models": [{"id": model, "family": "llama", "instruct": instruct}],
            "methods": [
                {"name": "base", "arm": ""},
                {"name": "sft", "arm": ""},
                {"name": "infosteer-intervention", "arm": arm},
            ],
            "mixes": [{"name": "commonsense", "tasks": ["boolq", "piqa"]}],
            "tasks": ["boolq", "piqa"],
            "seeds": [0, 1],
            "train": {"epochs": 1.0, "max_steps": None, "learning_rate": 5e-5},
            "eval": {"limit": n},
            "command": f"python -m infosteer_bench run --models /home/{host}/w/smol --data-root ../shared/data",
            "description": "two tasks, three methods",
        }
        write_sealed(folder / "grid.json", content)
    return folder


def write_cell(folder: Path, checkpoint: str, task: str, *, n: int, right: int, **changes) -> CellRecord:
    """One cell of `n` items of which the first `right` are correct."""
    key = f"{checkpoint}-{task}"
    items = [
        {
            "doc_id": i,
            "prompt_digest": f"{i:016x}",
            "generation": f"the correct answer is <b>|{i}",
            "finish_reason": "stop",
            "n_tokens": 6,
            "target": "true",
            "extracted": json.dumps({"robust": "true"}),
            "correct": json.dumps({"robust": int(i < right)}),
            "option_rank": float(i % 2),
        }
        for i in range(n)
    ]
    record = CellRecord.model_validate(
        {
            "key": key,
            "status": "success",
            "identity": {"task": task},
            "checkpoint_key": checkpoint,
            "family": "llama",
            "mix": None if changes.get("seed") is None else "commonsense",
            "task": task,
            "split": "ID",
            "engine": "hf",
            "dtype": "float32",
            "limit": n,
            "n_items": n,
            "n_total": 100,
            "exact_match": {"robust": 100 * right / n},
            "unparsed": {"robust": 0.0},
            "truncated": 0.0,
            "option_rank": 50.0,
            "stand_ins": ["dataset/winogrande/train.json"],
            "samples_sha256": write_items(samples_path(folder, key), items),
            **changes,
        }
    )
    record.save(folder)
    return record


def contents(board: Path) -> dict[str, bytes]:
    return {str(path.relative_to(board)): path.read_bytes() for path in board.rglob("*") if path.is_file()}


def test_a_board_is_rebuilt_from_its_own_records_byte_for_byte(tmp_path: Path):
    board = publish(write_run(tmp_path / "run"), tmp_path / "boards" / "demo")
    before = contents(board)
    assert set(before) == {*OUTPUTS, *RECORDS}
    assert check(board) == []
    for name in OUTPUTS:
        (board / name).unlink()
    assert check(board) == sorted(name for name in OUTPUTS if name != "index.html")  # which may be absent
    rebuild(board)
    assert contents(board) == before
    assert board_dirs(tmp_path / "boards") == [board]
    assert board_dirs(board) == [board]
    assert board_dirs(tmp_path / "run") == []


def test_publishing_again_changes_nothing(tmp_path: Path):
    run = write_run(tmp_path / "run")
    first = contents(publish(run, tmp_path / "a"))
    assert contents(publish(run, tmp_path / "a")) == first


def test_two_runs_with_equal_answers_give_equal_tables(tmp_path: Path):
    one = publish(write_run(tmp_path / "one", host="alpha", time_s=1.0), tmp_path / "a" / "demo")
    two = publish(write_run(tmp_path / "two", host="beta", time_s=77.5), tmp_path / "b" / "demo")
    for name in ("leaderboard.csv", "leaderboard.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_no_folder_or_host_of_the_machine_is_published(tmp_path: Path):
    board = publish(write_run(tmp_path / "run", host="alpha"), tmp_path / "demo")
    for name, data in contents(board).items():
        if not name.endswith(".parquet"):
            assert b"/home/" not in data, name
            assert b"alpha" not in data, name
    assert "--models smol --data-root ../shared/data" in (board / "leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/a/b/model", "model"),
        ("x=/a/b/model,/c/d", "x=model,d"),
        ("~/w/model", "model"),
        ("../shared/data", "../shared/data"),
        ("ORG/NAME", "ORG/NAME"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ({"host": "me", "/a/b.json": ["/a/b/c", 1, None]}, {"b.json": ["c", 1, None]}),
    ],
)
def test_folders_are_taken_out(given: object, expected: object):
    assert without_folders(given) == expected


def test_names_are_not_touched_by_that(tmp_path: Path):
    cell = write_cell(tmp_path, "k", "boolq", n=2, right=1, model="/a/b/c", method="sft", arm="/x/y", seed=0)
    assert (compacted(cell).model, compacted(cell).arm) == ("/a/b/c", "/x/y")


def test_one_edited_digit_is_found(tmp_path: Path):
    board = publish(write_run(tmp_path / "run"), tmp_path / "demo")
    table = board / "leaderboard.csv"
    text = table.read_text(encoding="utf-8")
    assert "25.00" in text
    table.write_text(text.replace("25.00", "26.00", 1), encoding="utf-8")
    assert check(board) == ["leaderboard.csv"]


def test_an_edited_record_is_refused_and_one_with_a_new_digest_contradicts_its_items(tmp_path: Path):
    board = publish(write_run(tmp_path / "run"), tmp_path / "demo")
    cells = board / "records" / "cells.jsonl"
    lines = cells.read_text(encoding="utf-8").splitlines()
    cells.write_text("\n".join([lines[0].replace("25.0", "75.0"), *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="digest"):
        check(board)
    from infosteer_bench.records import canonical_json, digest

    data = json.loads(lines[0])
    del data["content_digest"]
    data["exact_match"]["robust"] = 75.0
    forged = canonical_json({**data, "content_digest": digest(data)})
    cells.write_text("\n".join([forged, *lines[1:]]) + "\n", encoding="utf-8")
    assert "records/items.parquet" in check(board)
    with pytest.raises(UserError, match="do not give the recorded scores"):
        rebuild(board)


def test_missing_items_are_found(tmp_path: Path):
    board = publish(write_run(tmp_path / "run"), tmp_path / "demo")
    (board / "records" / "items.parquet").unlink()
    assert "records/items.parquet" in check(board)


def test_items_keep_every_generation(tmp_path: Path):
    run = write_run(tmp_path / "run")
    table = pq.read_table(publish(run, tmp_path / "demo") / "records" / "items.parquet").to_pylist()
    assert len(table) == 10 * 8
    assert table[3]["generation"] == "the correct answer is <b>|3"
    assert len({row["cell"] for row in table}) == 10


def test_a_finished_board_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = write_run(tmp_path / "run")
    board = publish(run, run / "leaderboard")
    before = contents(board)
    made: list[Path] = []
    again = publish_module._rebuilt
    monkeypatch.setattr(publish_module, "_rebuilt", lambda folder: (made.append(folder), again(folder))[1])
    publish(run, board)
    assert made == []
    (board / "deltas.csv").write_text("edited")  # a file of the board
    publish(run, board)
    assert len(made) == 1
    (run / "board.json").write_text("{")  # the note itself
    publish(run, board)
    assert len(made) == 2
    with monkeypatch.context() as other:  # the code
        other.setattr(finished, "_made_by", lambda: "another version")
        publish(run, board)
    assert len(made) == 3
    publish(run, board)
    assert len(made) == 4
    assert contents(board) == before
    (run / "cells" / "k20-piqa.json").unlink()  # the records
    publish(run, board)
    assert len(made) == 5
    assert contents(board) != before


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_damaged_items_are_named_in_one_line(tmp_path: Path, damage: bytes | None):
    board = publish(write_run(tmp_path / "run"), tmp_path / "demo")
    file = board / "records" / "items.parquet"
    if damage is None:  # whole, but not what a board needs
        pq.write_table(pq.read_table(file).drop_columns(["doc_id"]), file)
    else:
        file.write_bytes(damage)
    assert check(board) == ["records/items.parquet"]
    with pytest.raises(UserError, match="items do not give"):
        rebuild(board)


def test_stale_failed_and_corrupt_records_do_not_enter(tmp_path: Path):
    run = write_run(tmp_path / "run")
    keys = sorted(path.stem for path in (run / "cells").glob("*.json"))
    write_sealed(run / "plan.json", {"cells": keys[1:], "checkpoints": []})
    failed = json.loads((run / "cells" / f"{keys[1]}.json").read_text(encoding="utf-8"))
    del failed["content_digest"]
    CellRecord.model_validate({**failed, "status": "failed", "error": "CUDA | /home/me/x/log\nboom"}).save(run)
    (run / "cells" / f"{keys[2]}.json").write_text("{", encoding="utf-8")
    samples_path(run, keys[3]).write_bytes(b"not parquet")
    board = publish(run, tmp_path / "demo")
    kept = [json.loads(line)["key"] for line in (board / "records" / "cells.jsonl").read_text().splitlines()]
    assert kept == keys[4:]
    page = (board / "leaderboard.md").read_text(encoding="utf-8")
    assert "1 stale records" in page
    assert "CUDA \\| log boom" in page
    assert f"{keys[2]}.json; {keys[3]}.parquet" in page
    assert check(board) == []


def test_the_page_says_what_is_wrong_with_the_board(tmp_path: Path):
    run = write_run(tmp_path / "run", model="SmolLM2-135M-Instruct")
    (run / "cells" / "k20-piqa.json").unlink()
    page = (publish(run, tmp_path / "demo") / "leaderboard.md").read_text(encoding="utf-8")
    assert page.startswith("# demo\n\nGrid toy - two tasks, three methods\n")
    assert "only the first 8 items of each task" in page
    assert "**Instruction-tuned, not a base model:** SmolLM2-135M-Instruct" in page
    assert "dataset/winogrande/train.json" in page
    assert "hf float32, first 8 items" in page
    assert "- Trained: infosteer-intervention, sft on commonsense: 12 optimizer steps, 96 training rows\n" in page
    assert "- Recipe: epochs 1.0, learning\\_rate 5e-05\n" in page
    assert "- **In training:** warm-up is long.\n" in page
    assert "- **Mix commonsense lacks a source:** hellaswag (no training file)" in page
    assert "missing seeds 0: SmolLM2-135M-Instruct / infosteer-intervention / commonsense / piqa" in page
    assert "| infosteer-intervention | 56.25 ± 8.84 (+12.50) \\* | 62.50 (+12.50) \\* |" in page


def test_numbers_on_stand_in_data_are_marked(tmp_path: Path):
    run = write_run(tmp_path / "run")
    sft = {"n": 8, "model": "smollm2-135m", "method": "sft", "arm": "", "stand_ins": []}
    for seed in (0, 1):
        write_cell(run, f"k1{seed}", "boolq", right=3 + seed, seed=seed, **sft)
    page = (publish(run, tmp_path / "demo") / "leaderboard.md").read_text(encoding="utf-8")
    assert "| sft | 43.75 ± 8.84 | 43.75 ± 8.84 \\* |" in page
    assert "`*`: partial, or on stand-in data (tested, not ranked)" in page


def test_settings_are_text_in_the_page(tmp_path: Path):
    run = write_run(tmp_path / "run")
    sft = {"n": 8, "model": "smollm2-135m", "method": "sft", "arm": "", "dtype": "<i>f_8_</i>"}
    write_cell(run, "k10", "boolq", right=3, seed=0, **sft)
    page = (publish(run, tmp_path / "demo") / "leaderboard.md").read_text(encoding="utf-8")
    assert "- Answered with: hf &lt;i&gt;f\\_8\\_&lt;/i&gt;, first 8 items; hf float32" in page


def test_the_run_may_know_better_than_the_name(tmp_path: Path):
    board = publish(write_run(tmp_path / "run", model="plain-name", instruct=True), tmp_path / "demo")
    assert "**Instruction-tuned, not a base model:** plain-name" in (board / "leaderboard.md").read_text()


def test_a_base_model_is_not_called_instruction_tuned(tmp_path: Path):
    for name in ("qwen2.5-1.5b", "gemma-2-2b", "Llama-3-8B", "smollm2-135m", "bitnet"):
        page = (publish(write_run(tmp_path / name, model=name), tmp_path / "b" / name) / "leaderboard.md").read_text()
        assert "Instruction-tuned" not in page


def test_without_a_grid_the_records_say_what_to_expect(tmp_path: Path):
    run = write_run(tmp_path / "run", grid=False)
    board = publish(run, tmp_path / "demo")
    assert check(board) == []
    text = (board / "leaderboard.csv").read_text(encoding="utf-8")
    assert (
        "smollm2-135m,llama,sft,,commonsense,boolq,ID,2,8,43.75,8.84,1.21,86.29,,,,,,,50.00,,,0.00,0.00,true," in text
    )


@pytest.mark.parametrize(
    "name", ["a,b", 'say "x"', "a|b", "<script>alert(1)</script>", "`x`*y*[z](http://u)", "a\nb", "a\u202eb"]
)
def test_hostile_names_stay_whole_in_records_and_harmless_in_the_page(tmp_path: Path, name: str):
    board = publish(write_run(tmp_path / "run", model=name, arm=name), tmp_path / "demo")
    assert check(board) == []
    page = (board / "leaderboard.md").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "\u202e" not in page.split("- Command:")[0]
    assert escape(name) in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 4
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, "a name opened a column"
    assert {json.loads(line)["model"] for line in (board / "records/cells.jsonl").read_text().splitlines()} == {name}


def test_wrong_places_are_one_clear_line(tmp_path: Path):
    run = write_run(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        publish(run, tmp_path / "file")
    with pytest.raises(UserError, match="no finished cell"):
        publish(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="is no board"):
        check(tmp_path)


def test_publishing_imports_no_torch():
    program = (
        "import infosteer_bench.leaderboard, sys; assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_page_may_be_absent_but_not_wrong(tmp_path: Path):
    board = publish(write_run(tmp_path / "run"), tmp_path / "demo")
    page = board / "index.html"
    page.write_text(page.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert check(board) == ["index.html"]
    page.unlink()
    assert check(board) == []
    rebuild(board)
    assert page.is_file()
