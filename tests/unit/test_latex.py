"""leaderboard.tex: its structure, what is bold in it, and that no name can break it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infosteer_bench.leaderboard.paper.board import paper_files
from infosteer_bench.leaderboard.views.latex import LONGEST, WIDEST, escape, to_latex
from tests.measured import COMMONSENSE, METHODS, STEERED, MadeBoard

HOSTILE = r"""$a_1$ {50%} \end{table*} #&~^ "q" `b` 'c' <d> | [e] -- é 漢字"""
LATEX = shutil.which("pdflatex")


def tex_of(made: MadeBoard) -> str:
    return to_latex(made.board)


def tables(text: str) -> list[list[list[str]]]:
    """Of every tabular its lines of cells, headers of models left out; fails where the structure is broken."""
    bare = re.sub(r"\\[{}%]", "", re.sub(r"(?<!\\)%.*", "", text.replace(r"\\", "\0")))
    assert bare.count("{") == bare.count("}")
    open_ones: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []
    found: list[list[list[str]]] = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{.*?\{3\.2cm\}(r+)\}\n(.*?)\\end\{tabular\}", text, re.S):
        lines: list[list[str]] = []
        assert body.startswith("\\toprule\n")
        assert body.rstrip().endswith("\\bottomrule")
        for line in body.splitlines()[1:-1]:
            if line == r"\midrule":
                continue
            assert line.endswith(r" \\")
            cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
            if line.startswith(r"\multicolumn"):
                assert line.startswith(rf"\multicolumn{{{len(columns) + 1}}}{{l}}")
                continue
            assert len(cells) == len(columns) + 1
            lines.append([cell.strip() for cell in cells])
        found.append(lines)
    return found


def test_the_tables_have_the_paper_s_shape():
    language, math = tables(tex_of(MadeBoard()))
    assert " ".join(language[0]) == "Method BoolQ PIQA SIQA HellaS. WinoG. ARC{-}e ARC{-}c OBQA Avg."
    assert " ".join(math[0]) == "Method GSM8K AddSub SingleEq MultiA. AQuA MAWPS SVAMP OOD (6) OOD (5)"
    for table in (language, math):
        assert [line[0].replace("{-}", "-") for line in table[1:]] == list(METHODS)
        assert all(all(line) for line in table)


def test_the_average_is_over_all_tasks_of_the_table_or_empty():
    made = MadeBoard(tasks=COMMONSENSE, items=40)
    made.add("m", "base", None, "boolq", np.arange(40) < 32)
    rows = {row.task: row for row in made.rows if row.method == "base"}
    expected = sum(rows[task].accuracy or 0 for task in COMMONSENSE) / 8
    assert tables(tex_of(made))[0][1][-1] == f"{expected:.1f}" == "27.5"
    made.cells = [cell for cell in made.cells if (cell.method, cell.task) != ("base", "piqa")]
    line = tables(tex_of(made))[0][1]
    assert (line[2], line[-1]) == ("", "")


def test_bold_means_win_and_nothing_else():
    made = MadeBoard()
    for seed in (0, 1, 2):
        made.add("m", STEERED[1], seed, "boolq", np.arange(60) < 1 + seed % 2)  # a clear loss
        made.add("m", STEERED[1], seed, "piqa", np.arange(60) < (60, 20, 25)[seed])  # larger by luck
    rows = {(row.method, row.task): row for row in made.rows}
    assert (rows[STEERED[1], "boolq"].verdict, rows[STEERED[1], "piqa"].verdict) == ("loss", "tie")
    assert (rows[STEERED[1], "piqa"].accuracy or 0) > (rows["sft", "piqa"].accuracy or 0)
    language, math = tables(tex_of(made))
    tasks = [*COMMONSENSE, None]
    for line in language[1:]:
        for task, cell in zip(tasks, line[1:], strict=True):
            method = line[0].replace("{-}", "-")
            verdict = rows[method, task].verdict if task else ""
            assert (r"\textbf" in cell) == (verdict == "win")
            assert (r"\downarrow" in cell) == (verdict == "loss")
    bold = [sum(r"\textbf" in cell for cell in line) for line in math[1:]]
    assert bold == [0, 0, 9, 0]


def test_spread_and_marks():
    text = tex_of(MadeBoard(tasks=("boolq", "gsm8k")))
    assert "3 training seeds" in text
    assert tables(text)[0][2][1] == r"50.6{\scriptsize$\pm$1.0}"
    one = MadeBoard(tasks=("boolq", "gsm8k"), seeds=(0,))
    assert r"\pm" not in tex_of(one)
    assert r"\textbf{Bold}" not in tex_of(one)
    assert "takes two seeds" in tex_of(one)
    made = MadeBoard(tasks=("boolq", "gsm8k"))
    made.cells = [cell for cell in made.cells if (cell.method, cell.seed, cell.task) != ("sft", 2, "boolq")]
    language, math = tables(tex_of(made))
    assert language[2][1].endswith("$^{*}$")
    assert "*" not in math[2][1]
    assert "*: partial" in tex_of(made)


def test_a_board_without_the_tasks_of_a_table_has_no_such_table():
    assert len(tables(tex_of(MadeBoard(tasks=("boolq",))))) == 1
    own = [f"task_{place:02}" for place in range(WIDEST + 2)]
    found = tables(tex_of(MadeBoard(tasks=own, items=10, seeds=(0, 1))))
    assert [len(table[0]) - 1 for table in found] == [WIDEST, 2]
    assert found[1][0][1:] == [r"task\_09", r"task\_10"]


def test_long_boards_are_cut_into_pages_between_models():
    models = [f"model-{place}" for place in range(12)]
    text = tex_of(MadeBoard(tasks=("boolq", "piqa"), models=models, items=10, seeds=(0, 1)))
    found = tables(text)
    assert len(found) > 1
    assert sum(len(table) - 1 for table in found) == 12 * len(METHODS)
    assert all(len(table) <= LONGEST for table in found)
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels) == len(found)


def test_reported_numbers_stand_under_ours_in_italics():
    made = MadeBoard(models=("llama-3-8b",))
    language, math = tables(tex_of(made))
    assert language[2][0] == r"\quad\textit{as reported}"
    assert language[2][1] == r"\textit{70.3}"
    assert language[2][-1] == r"\textit{80.8}"
    assert len(math) == 1 + len(METHODS)  # the paper reports no mathematics by model


def test_the_paper_s_own_numbers_are_one_line_each():
    found = tables(paper_files()["leaderboard.tex"])
    assert sum(len(table) - 1 for table in found) == 48
    numbers = [cell.removeprefix(r"\textit{").removesuffix("}") for cell in found[0][1]]
    assert " ".join(numbers) == "base 64.2 78.5 74.3 80.1 76.4 76.9 61.2 75.8 73.4"


@given(st.text(max_size=40))
def test_escaped_text_has_nothing_left_that_latex_would_read(text: str):
    escaped = escape(text)
    assert all(ord(letter) < 256 and letter.isprintable() for letter in escaped)
    bare = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", escaped)
    assert not set(bare.replace("{-}", "").replace("{[}", "").replace("{]}", "")) & set("\\&%$#_{}~^<>|\"`'-[]")


def test_hostile_names_leave_the_structure_whole():
    made = MadeBoard(tasks=("boolq", "gsm8k", HOSTILE), models=(HOSTILE, "n"), methods=("sft", HOSTILE), name=HOSTILE)
    found = tables(tex_of(made))
    assert [len(table) for table in found] == [5, 5, 5]
    assert r"\end{table*}" not in tex_of(made).replace("\n\\end{table*}", "")


@pytest.mark.skipif(LATEX is None, reason="needs pdflatex")
def test_it_compiles(tmp_path: Path):
    hostile = MadeBoard(
        tasks=("boolq", "gsm8k", HOSTILE), models=(HOSTILE, "n"), methods=("sft", HOSTILE), name=HOSTILE
    )
    texts = (tex_of(MadeBoard(models=("llama-3-8b",))), tex_of(hostile), paper_files()["leaderboard.tex"])
    for place, text in enumerate(texts):
        (tmp_path / f"board{place}.tex").write_text(text, encoding="utf-8")
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}"
        r"\usepackage{booktabs,array,textcomp}\usepackage[margin=2cm]{geometry}\begin{document}"
        + "".join(rf"\input{{board{place}}}\clearpage" for place in range(len(texts)))
        + r"\end{document}",
        encoding="utf-8",
    )
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "too large for page" not in done.stdout
