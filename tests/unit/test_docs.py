"""The documentation cannot drift: generated parts, links, commands and examples are what the code takes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import blocks
import pytest
import yaml

from infosteer_bench.cli import build_parser
from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, load_grid
from infosteer_bench.methods import METHODS, register_file
from infosteer_bench.tasks.catalog import read_tasks
from infosteer_dev import architecture, docs, measured, site

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = docs.pages(ROOT)
ZOO = ROOT / "examples" / "zoo"


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def readme_command(name: str) -> str:
    found = re.findall(rf"<!-- command:{name} -->\n```bash\n(.*)\n```\n", README)
    assert len(found) == 1, name
    return found[0]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the pages, with all that their generated parts are made of."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("infosteer_bench", "tests", "leaderboards", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_generated_parts_are_what_the_code_says(capsys: pytest.CaptureFixture[str]):
    assert docs.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(docs.blocks(ROOT)))
def test_a_stale_part_is_named(name: str, checkout: Path, capsys: pytest.CaptureFixture[str]):
    mark = f"<!-- generated:{name} -->\n"
    holding = [page for page in docs.pages(checkout) if mark in page.read_text(encoding="utf-8")]
    before = {page: page.read_text(encoding="utf-8") for page in holding}
    assert before, f"no page shows {name}"
    for page, text in before.items():
        page.write_text(text.replace(mark, mark + "one line too many\n"), encoding="utf-8")
    assert docs.main(["--check", "--root", str(checkout)]) == 1
    out = capsys.readouterr().out
    assert out.count(repr(name)) == len(holding)
    assert all(page.relative_to(checkout).as_posix() in out for page in holding)
    assert docs.main(["--root", str(checkout)]) == 0
    assert {page: page.read_text(encoding="utf-8") for page in holding} == before


def test_a_missing_part_is_named_and_an_unknown_one_refused(checkout: Path, capsys: pytest.CaptureFixture[str]):
    assert docs.missing(set(), ROOT) == list(docs.blocks(ROOT))
    page = checkout / "docs" / "reference.md"
    page.write_text(page.read_text(encoding="utf-8").replace("<!-- generated:tasks -->", ""), encoding="utf-8")
    for arguments in (["--check"], []):  # writing cannot put the marks back
        assert docs.main([*arguments, "--root", str(checkout)]) == 1
        assert "no page shows the generated part 'tasks'" in capsys.readouterr().out
    page.write_text("<!-- generated:weather -->\n<!-- /generated -->\n", encoding="utf-8")
    assert docs.main(["--check", "--root", str(checkout)]) == 2
    assert "docs/reference.md: nothing generates the part 'weather'" in capsys.readouterr().err


def test_a_folder_without_readme_is_refused(tmp_path: Path):
    assert docs.main(["--root", str(tmp_path)]) == 2


def test_the_excerpt_of_a_board_shows_partial_means_and_labels(tmp_path: Path):
    folder = tmp_path / measured.BOARD
    folder.mkdir(parents=True)
    facts = {"settings": ["hf float32"], "items": 7, "instruct_models": ["a|b"], "stand_ins": ["x.json"]}
    (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "leaderboard.csv").write_text(
        "model,method,arm,task,accuracy,complete,unparsed_rate,delta_vs_sft,delta_ci_low,delta_ci_high,verdict\n"
        "a|b,base,,mean:all,10.00,true,0.00,-30.00,-31.00,-29.00,\n"
        "a|b,sft,,boolq,1.00,true,0.00,,,,\na|b,sft,,mean:id,50.00,false,1.50,,,,\n"
        "a|b,sft,,mean:all,40.00,true,2.50,,,,\na|b,other,,mean:all,45.00,true,2.50,5.00,1.00,9.00,win\n",
        encoding="utf-8",
    )
    text = measured.board(tmp_path, tmp_path / "docs")
    assert "| a\\|b | sft | 50.00 \\* |  | 40.00 |  | 2.50 |" in text
    assert "| a\\|b | other |  |  | 45.00 | +5.00 (1.00 to 9.00) win | 2.50 |" in text
    assert "instruction-tuned" in text
    assert "x.json" in text
    assert "(../leaderboards/embedded/leaderboard.md)" in text
    assert "30 to 30 points" in measured.headline(tmp_path)
    assert "came out as 1 win." in measured.headline(tmp_path)
    assert "No board" in measured.board(tmp_path / "elsewhere", tmp_path)
    assert "No board" in measured.headline(tmp_path / "elsewhere")


def test_a_reading_path_follows_a_function_and_stops_where_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "infosteer_bench" / "room"
    package.mkdir(parents=True)
    (package / "a.py").write_text("class Worker:\n    def train(self):\n        pass\n", encoding="utf-8")
    steps = [architecture.Step("Worker.train", "trains")]
    monkeypatch.setitem(architecture.READING_PATHS, "train", steps)
    text = architecture.reading_path("train", tmp_path, tmp_path / "docs")
    assert "| 1 | `Worker.train` | [room/a.py](../infosteer_bench/room/a.py) | trains |" in text
    architecture._defined.cache_clear()
    (package / "b.py").write_text("class Worker:\n    def train(self):\n        pass\n", encoding="utf-8")
    with pytest.raises(UserError, match="defined in 2 files"):
        architecture.reading_path("train", tmp_path, tmp_path)
    steps[0] = architecture.Step("Worker.answer", "answers")
    with pytest.raises(UserError, match="defined in 0 files"):
        architecture.reading_path("train", tmp_path, tmp_path)


def test_the_line_that_adds_the_penalty_is_three_clicks_from_readme():
    """README -> docs/architecture.md -> the file, whose function is named."""
    assert "(docs/architecture.md)" in README
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (link,) = re.findall(r"`MethodTrainer.compute_loss` \| \[[^]]*\]\(([^)]*)\)", page)
    source = (ROOT / "docs" / link).resolve().read_text(encoding="utf-8")
    body = source.split("def compute_loss")[1].split("\n    def ")[0]
    assert "self.method.penalty(" in body
    assert "total = loss + penalty" in body


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=shown)
def test_links_lead_to_files_and_headings(page: Path):
    text = page.read_text(encoding="utf-8")
    site.targets(text, shown(page))  # raises for a file that is not there
    for match in site.LINK.finditer(text):
        target, anchor = match[2], (match[3] or "").removeprefix("#")
        if anchor and target.endswith(".md") and "://" not in target:
            headings = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings}, match[0]


def test_a_link_to_nowhere_is_refused():
    with pytest.raises(UserError, match="leads to no file"):
        site.targets("[x](../nowhere.py)", "docs/page.md")


def test_the_site_takes_along_what_is_linked_outside_docs():
    text = "[a](../infosteer_bench/grid.py), [b](method.md#recipe), ![c](../leaderboards/embedded/figures/forest.png)"
    assert site.rewritten(text, "docs/page.md") == (
        "[a](repository/infosteer_bench/grid.py.md), [b](method.md#recipe), "
        "![c](repository/leaderboards/embedded/figures/forest.png)"
    )
    beside = site.rewritten("[a](../../infosteer_bench/grid.py) [b](../../docs/method.md)", "leaderboards/x/README.md")
    assert beside == "[a](../../infosteer_bench/grid.py.md) [b](../../../method.md)"


def test_a_picture_that_is_a_link_is_led_twice():
    text = "[![a](../leaderboards/embedded/figures/forest.png)](../leaderboards/embedded/leaderboard.md)"
    assert site.rewritten(text, "docs/index.md") == (
        "[![a](repository/leaderboards/embedded/figures/forest.png)](repository/leaderboards/embedded/leaderboard.md)"
    )


def test_a_built_page_with_a_link_to_nowhere_is_refused(tmp_path: Path):
    (tmp_path / "a.html").write_text('<a href="b.html#x"></a><img src="c%20d.png"><a href="https://x"></a>')
    (tmp_path / "c d.png").touch()
    with pytest.raises(UserError, match=r"a\.html links to b\.html"):
        site.on_post_build(config={"site_dir": str(tmp_path)})
    (tmp_path / "b.html").touch()
    site.on_post_build(config={"site_dir": str(tmp_path)})


def test_the_code_cites_sections_that_the_method_page_has():
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    cited = {
        name
        for path in (ROOT / "infosteer_bench").rglob("*.py")
        for name in re.findall(r'(?i)\bmethod(?:\.md)?, "([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert {"The memory view", "Development split"} <= cited
    assert all(name in page for name in cited), cited


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("[!i]*.md")), ids=shown)
def test_a_decision_is_short_and_names_what_there_is(page: Path):
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 12
    (where,) = re.findall(r"^\*\*Where\.\*\* (.*)$", text, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", where):
        assert (ROOT / name).is_file() or name in architecture._defined(ROOT / "infosteer_bench"), name


def test_every_page_stands_in_the_sites_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    assert set(re.findall(r"\S+\.md", text)) == pages
    assert "http" not in text
    assert yaml.safe_load(text)["theme"]["font"] is False


def test_readme_stays_short():
    assert len(README.splitlines()) <= 160
    assert len(README.split()) < 1000


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
    assert "-m infosteer_dev.docs --check" in script
    assert "mkdocs build --strict" in script


def test_the_only_workflow_calls_ci_and_nothing_else():
    (workflow,) = (ROOT / ".github" / "workflows").iterdir()
    steps = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


COMMANDS = [
    (shown(page), line) for page in PAGES for block in blocks.code_blocks(page) for line in blocks.our_commands(block)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_every_command_that_is_shown_parses(page: str, line: str):
    """Those in marked blocks too; an unknown command or option would end the parser."""
    build_parser().parse_args(shlex.split(line))


def test_commands_are_found_and_a_wrong_one_would_fail():
    assert len(COMMANDS) >= 20
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/analyses.md", "docs/large-models.md"}
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--girds", "embedded"])


def test_every_mark_is_known():
    marks = {block.needs for page in PAGES for block in blocks.code_blocks(page) if block.needs}
    assert marks <= blocks.MARKS


def test_the_example_is_a_grid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ZOO)
    grid = load_grid("my_grid.yaml")
    assert set(yaml.safe_load((ZOO / "my_grid.yaml").read_text(encoding="utf-8"))) <= set(Grid.model_fields)
    assert "zoo" in read_tasks(Path(grid.include_path or ""))
    for source in grid.mixes[0].sources:
        assert all(json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines())
    names: list[str] = []
    try:
        names = [register_file(Path(path)) for path in grid.method_files]
        assert {arm.name for arm in grid.methods} <= set(METHODS)
    finally:
        for name in names:
            METHODS.unregister(name)
