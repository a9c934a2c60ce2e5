"""README cannot drift: its generated parts, its two commands and its examples are what the code takes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from infosteer_bench import docs
from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, load_grid
from infosteer_bench.methods import METHODS, register_file
from infosteer_bench.tasks.catalog import read_tasks

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example_files() -> dict[str, str]:
    """Name -> text of every block behind a `<!-- file: NAME -->` mark."""
    return dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", README, re.DOTALL))


def readme_command(name: str) -> str:
    found = re.findall(rf"<!-- command:{name} -->\n```bash\n(.*)\n```\n", README)
    assert len(found) == 1, name
    return found[0]


def test_generated_parts_are_what_the_code_says():
    assert docs.generate(README, ROOT)[1] == []


@pytest.mark.parametrize("name", sorted(docs.blocks(ROOT)))
def test_a_stale_part_is_named(name: str):
    mark = f"<!-- generated:{name} -->\n"
    assert docs.generate(README.replace(mark, mark + "one line too many\n"), ROOT) == (README, [name])


def test_stale_parts_are_found_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = sorted(docs.blocks(ROOT))
    stale = re.sub("(<!-- generated:.+ -->\n)", r"\1one line too many\n", README)
    (tmp_path / "README.md").write_text(stale, encoding="utf-8")
    for board in (docs.BOARD, docs.TWINS):
        (tmp_path / board).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / board).symlink_to(ROOT / board)
    assert docs.main(["--check", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert all(repr(name) in out for name in names)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == stale
    assert docs.main(["--root", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README
    assert docs.main(["--check", "--root", str(tmp_path)]) == 0


def test_a_missing_part_is_stale_and_an_unknown_one_refused(tmp_path: Path):
    assert docs.generate("nothing here", ROOT)[1] == list(docs.blocks(ROOT))
    with pytest.raises(UserError, match="nothing generates"):
        docs.generate("<!-- generated:weather -->\n<!-- /generated -->", ROOT)
    assert docs.main(["--root", str(tmp_path)]) == 2


def test_the_excerpt_of_a_board_shows_partial_means_and_labels(tmp_path: Path):
    folder = tmp_path / docs.BOARD
    folder.mkdir(parents=True)
    facts = {"settings": ["hf float32"], "items": 7, "instruct_models": ["a|b"], "stand_ins": ["x.json"]}
    (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "leaderboard.csv").write_text(
        "model,method,arm,task,accuracy,complete,unparsed_rate,delta_vs_sft,delta_ci_low,delta_ci_high,verdict\n"
        "a|b,sft,,boolq,1.00,true,0.00,,,,\na|b,sft,,mean:id,50.00,false,1.50,,,,\n"
        "a|b,sft,,mean:all,40.00,true,2.50,,,,\na|b,other,,mean:all,45.00,true,2.50,5.00,1.00,9.00,win\n",
        encoding="utf-8",
    )
    text = docs.board(tmp_path)
    assert "| a\\|b | sft | 50.00 \\* |  | 40.00 |  | 2.50 |" in text
    assert "| a\\|b | other |  |  | 45.00 | +5.00 (1.00 to 9.00) win | 2.50 |" in text
    assert "instruction-tuned" in text
    assert "x.json" in text
    assert "No board" in docs.board(tmp_path / "elsewhere")


def test_the_first_screen_has_exactly_two_commands_that_set_themselves_up():
    first_screen = README.split("\n## ")[0]
    assert re.findall(r"```bash\n(.*?)\n```", first_screen, re.DOTALL) == [
        readme_command("run"),
        readme_command("test"),
    ]
    for name in ("run", "test"):
        assert readme_command(name).startswith("python3 -m venv .venv && .venv/bin/pip install -e ")


def test_ci_runs_the_readmes_test_command_literally():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    program = next(line.strip() for line in script.splitlines() if line.strip().startswith("awk "))
    done = subprocess.run(
        ["bash", "-c", program, "readme_command", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == readme_command("test") + "\n"
    assert "test_command=$(readme_command test)" in script
    assert 'bash -euo pipefail -c "$test_command"' in script


def test_the_readmes_options_exist():
    from infosteer_bench.cli import build_parser

    parser = build_parser()
    arguments = readme_command("run").split("-m infosteer_bench ")[1].split()
    assert parser.parse_args(arguments).command == "run"
    for line in re.findall(r"python -m infosteer_bench (leaderboard[^`\n]*|run --grid my_grid.yaml)", README):
        parser.parse_args(line.split())


def test_the_example_grid_is_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = example_files()
    assert {"my_grid.yaml", "animals.jsonl", "my_tasks/zoo.yaml", "my_tasks/zoo.jsonl"} < files.keys()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    grid = load_grid("my_grid.yaml")
    assert set(yaml.safe_load(files["my_grid.yaml"])) <= set(Grid.model_fields)
    assert "zoo" in read_tasks(Path(grid.include_path or ""))
    for source in grid.mixes[0].sources:
        assert all(json.loads(line) for line in Path(source).read_text().splitlines())
    try:
        names = [register_file(Path(path)) for path in grid.method_files]
        assert {arm.name for arm in grid.methods} <= set(METHODS)
    finally:
        for name in names:
            METHODS.unregister(name)
