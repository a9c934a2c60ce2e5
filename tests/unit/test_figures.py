"""Figures: the numbers that they show, the marks that they carry, and a drawing in which nothing is cut or covered."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from infosteer_bench.leaderboard.views.figures import drawing, seals
from infosteer_bench.leaderboard.views.figures.canvas import text_width, wrap
from infosteer_bench.leaderboard.views.figures.chart import Chart
from infosteer_bench.leaderboard.views.figures.charts import (
    PER_FILE,
    charts,
    figure_disagree,
    figure_files,
    update_figures,
)
from tests.measured import METHODS, STEERED, MadeBoard

SMALL = ("boolq", "piqa", "gsm8k", "addsub", "aqua")
HOSTILE = "$a$ <b>&\x07]]> -- \u6f22\u5b57 'x' \\frac"


@pytest.fixture(scope="module")
def made() -> MadeBoard:
    return MadeBoard(tasks=SMALL, models=("m", "n"))


@pytest.fixture(scope="module")
def files(made: MadeBoard) -> dict[str, bytes]:
    return figure_files(made.board)


def of(made: MadeBoard) -> dict[str, Chart]:
    return charts(made.board)


def point(chart: Chart, method: str, task: str, panel: int = 0):
    entrant = [name for name, _ in chart.entrants].index(method)
    return chart.panels[panel].points[entrant][[name for name, _ in chart.columns].index(task)]


def test_charts_hold_the_numbers_of_the_rows(made: MadeBoard):
    found = of(made)
    rows = {(row.model, row.method, row.task): row for row in made.rows}
    assert list(found) == ["ood", "deltas", "forest"]
    assert [task for task, _ in found["ood"].columns] == ["addsub", "aqua", "mean:ood", "mean:ood5"]
    assert [task for task, _ in found["forest"].columns] == [*SMALL, "mean:id", "mean:ood", "mean:all"]
    assert [method for method, _ in found["ood"].entrants] == list(METHODS)
    assert [label for _, label in found["deltas"].entrants] == ["intervention", "regularization"]
    for model, panel in (("m", 0), ("n", 1)):
        for method in METHODS:
            row = rows[model, method, "addsub"]
            shown = point(found["ood"], method, "addsub", panel)
            assert row.interval is not None
            assert (shown.value, shown.low, shown.high) == (round(row.accuracy or 0, 2), *np.round(row.interval, 2))
        for method in STEERED:
            row = rows[model, method, "boolq"]
            assert row.versus is not None
            for kind in ("deltas", "forest"):
                shown = point(found[kind], method, "boolq", panel)
                assert shown.value == round(row.delta_vs_sft or 0, 2)
                assert (shown.low, shown.high) == (round(100 * row.versus.low, 2), round(100 * row.versus.high, 2))
                assert shown.verdict == row.verdict
    assert {point(found["forest"], method, "boolq").verdict for method in STEERED} == {"win", "tie"}


def test_titles_tell_seeds_and_items():
    found = of(MadeBoard(tasks=SMALL))
    assert "3 seeds, 60 items per task; 95 % intervals over seeds and items" in found["forest"].subtitle
    assert "base: items" in found["ood"].subtitle
    one = MadeBoard(tasks=SMALL, seeds=(0,))
    for method in METHODS:
        one.add("m", method, None if method == "base" else 0, "aqua", np.arange(30) < 9)
    for chart in of(one).values():
        assert chart.subtitle.startswith("1 seed, 30 to 60 items per task")
        assert "over items only" in chart.subtitle
    assert dict(of(one)["ood"].columns)["aqua"] == "aqua n=30"
    assert "takes two seeds" in of(one)["forest"].notes[0]
    without = MadeBoard(tasks=SMALL)
    without.items = {}
    assert "no intervals" in of(without)["ood"].subtitle
    assert point(of(without)["ood"], "sft", "aqua").low is None


def test_doubtful_rows_are_marked_at_the_number_or_once_at_the_task():
    made = MadeBoard(tasks=SMALL)
    made.cells = [cell for cell in made.cells if (cell.method, cell.seed, cell.task) != (STEERED[0], 2, "boolq")]
    chart = of(made)["forest"]
    assert point(chart, STEERED[0], "boolq").marked
    assert not point(chart, STEERED[1], "boolq").marked
    assert chart.notes[-1].startswith("*")
    for method in METHODS:
        for seed in (None,) if method == "base" else (0, 1, 2):
            made.add("m", method, seed, "boolq", np.arange(60) < 30, stand_ins=("boolq.json",))
    chart = of(made)["forest"]
    assert dict(chart.columns)["boolq"] == "boolq*"
    assert not any(point(chart, method, "boolq").marked for method in STEERED)


def test_a_figure_without_anything_to_show_is_not_made():
    assert list(of(MadeBoard(tasks=("boolq", "gsm8k")))) == ["deltas", "forest"]
    assert list(of(MadeBoard(tasks=SMALL, methods=("base", "sft")))) == ["ood"]
    assert of(MadeBoard(tasks=("boolq",), methods=("base",))) == {}


def test_many_models_make_several_files():
    models = [f"m{place}" for place in range(PER_FILE + 1)]
    found = of(MadeBoard(tasks=("boolq", "addsub"), models=models, seeds=(0, 1), items=10))
    assert list(found) == ["ood-1", "deltas-1", "forest-1", "ood-2", "deltas-2", "forest-2"]
    assert [panel.title for part in ("ood-1", "ood-2") for panel in found[part].panels] == models


def test_the_digest_is_of_every_number_and_label():
    before = {stem: chart.digest for stem, chart in of(MadeBoard(tasks=SMALL)).items()}
    for task, touched in (("addsub", {"ood", "deltas", "forest"}), ("boolq", {"deltas", "forest"})):
        made = MadeBoard(tasks=SMALL)
        made.add("m", STEERED[1], 0, task, np.arange(60) < 31)
        after = {stem: chart.digest for stem, chart in of(made).items()}
        assert {stem for stem in before if before[stem] != after[stem]} == touched
    renamed = of(MadeBoard(tasks=SMALL, models=("k",)))
    assert all(renamed[stem].digest != before[stem] for stem in before)
    chart = of(MadeBoard(tasks=SMALL))["forest"]
    shown = chart.panels[0].points[0][0]
    assert shown is not None
    for changed in (
        replace(shown, value=shown.value + 0.01),
        replace(shown, low=(shown.low or 0) - 0.01),
        replace(shown, high=None),
        replace(shown, verdict="tie"),
        replace(shown, marked=True),
    ):
        points = ((changed, *chart.panels[0].points[0][1:]), *chart.panels[0].points[1:])
        assert replace(chart, panels=(replace(chart.panels[0], points=points),)).digest != chart.digest


def test_files_parse_and_carry_the_digest(made: MadeBoard, files: dict[str, bytes]):
    found = of(made)
    assert set(files) == {f"figures/{stem}.{ending}" for stem in found for ending in ("svg", "png")}
    for name, data in files.items():
        assert seals.shown(name, data) == found[Path(name).stem].digest
        if name.endswith(".svg"):
            assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
            assert b"<dc:date>" not in data
        else:
            image = Image.open(io.BytesIO(data))
            image.load()
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_drawing_again_gives_the_same_bytes(made: MadeBoard, files: dict[str, bytes]):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):  # a user's settings do not matter
        assert figure_files(made.board) == files


def test_disagreement_is_named_and_only_that_is_drawn(made: MadeBoard, tmp_path: Path, monkeypatch):
    board = made.board
    assert len(figure_disagree(tmp_path, board)) == 6
    assert len(update_figures(tmp_path, board)) == 6
    assert figure_disagree(tmp_path, board) == []
    svg, png = tmp_path / "figures/ood.svg", tmp_path / "figures/forest.png"
    text = svg.read_text()
    digit = text.index("d=") + text[text.index("d=") :].index("1")
    svg.write_text(text[:digit] + "2" + text[digit + 1 :])
    data = bytearray(png.read_bytes())
    data[len(data) // 2] ^= 1
    png.write_bytes(bytes(data))
    assert figure_disagree(tmp_path, board) == ["figures/forest.png", "figures/ood.svg"]
    svg.unlink()
    assert figure_disagree(tmp_path, board) == ["figures/forest.png", "figures/ood.svg"]
    drawn: list[str] = []
    draw = drawing.draw
    monkeypatch.setattr(drawing, "draw", lambda chart, **about: drawn.append(chart.kind) or draw(chart, **about))
    update_figures(tmp_path, board)
    assert sorted(drawn) == ["forest", "ood"]
    assert update_figures(tmp_path, board) == []
    assert sorted(drawn) == ["forest", "ood"]


def test_other_numbers_and_outlived_figures_are_found(made: MadeBoard, files: dict[str, bytes], tmp_path: Path):
    (tmp_path / "figures").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "figures/mine.svg").write_text("<svg/>")
    other = MadeBoard(tasks=SMALL, models=("m", "n"))
    other.add("n", STEERED[1], 0, "aqua", np.arange(60) < 12)
    assert len(figure_disagree(tmp_path, other.board)) == 6
    none = MadeBoard(tasks=SMALL, models=("m",), methods=("base", "sft"))
    assert set(figure_disagree(tmp_path, none.board)) == set(files)
    update_figures(tmp_path, none.board)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["mine.svg", "ood.png", "ood.svg"]


def test_seals_hold_for_untouched_bytes_only(files: dict[str, bytes]):
    for name in ("figures/ood.svg", "figures/ood.png"):
        data = files[name]
        assert seals.shown(name, data) is not None
        for place in range(40, len(data) - 100, len(data) // 25):
            assert seals.shown(name, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) is None
        assert seals.shown(name, data[: len(data) // 2]) is None
        assert seals.shown(name, data + b" ") is None
    assert seals.shown("a.svg", b"<svg/>") is None
    assert seals.shown("a.png", b"no image") is None


@pytest.mark.parametrize(
    ("models", "arms"),
    [
        (("m",), ("",)),
        (("organisation/a-model-with-a-very-long-name-of-many-words-Instruct", HOSTILE, "n"), ("", "alpha=2.0")),
    ],
)
def test_no_text_is_cut_or_covers_other_text(models: tuple[str, ...], arms: tuple[str, ...]):
    made = MadeBoard(tasks=(*SMALL, "arc_challenge", "multiarith"), models=models, seeds=(0, 1), items=30)
    for model in models:
        for arm in arms[1:]:
            for seed in (0, 1):
                long = f"{arm},fraction=0.05,rank_by=signed,value=signed_mean,layers=early_and_middle"
                made.add(model, STEERED[0], seed, "addsub", np.arange(30) < 4, arm=long)
    for kind, chart in of(made).items():
        boxes, width, height = drawn_texts(chart)
        for text, box, _ in boxes:
            assert box.x0 > -0.5, (kind, text)
            assert box.y0 > -0.5, (kind, text)
            assert box.x1 < width + 0.5, (kind, text)
            assert box.y1 < height + 0.5, (kind, text)
        upright = [(text, box.padded(-0.8)) for text, box, turned in boxes if not turned and text != "*"]
        for (one, box), (other, another) in combinations(upright, 2):
            assert not box.overlaps(another), (kind, one, other)


def drawn_texts(chart: Chart) -> tuple[list[tuple[str, Bbox, bool]], float, float]:
    """Every visible text as drawn: (text, box in pixels, whether it is turned); the figure's width and height."""
    with drawing.drawing_settings():
        figure = drawing.make_figure(chart)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        boxes = [
            (text.get_text(), text.get_window_extent(renderer), bool(text.get_rotation()))
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip()
        ]
    return boxes, figure.bbox.width, figure.bbox.height


def test_hostile_names_are_drawn_as_text():
    made = MadeBoard(tasks=("boolq", "addsub"), models=(HOSTILE,), seeds=(0, 1), items=10, name=HOSTILE)
    for name, data in figure_files(made.board).items():
        assert seals.shown(name, data) is not None
        if name.endswith(".svg"):
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data).iter()}
            assert not tags & {"b", "script"}


def test_verdicts_have_a_sign_and_methods_a_shape_of_their_own():
    made = MadeBoard(tasks=SMALL)
    made.add("m", STEERED[1], 2, "boolq", np.arange(60) < 31)
    for seed in (0, 1, 2):
        made.add("m", STEERED[1], seed, "piqa", np.arange(60) < seed % 2)
    chart = of(made)["deltas"]
    verdicts = [shown.verdict for series in chart.panels[0].points for shown in series if shown]
    texts = [text for text, _, _ in drawn_texts(chart)[0] if "\n" in text]
    assert sum("\u25b2" in text for text in texts) == verdicts.count("win") > 0
    assert sum("\u25bc" in text for text in texts) == verdicts.count("loss") == 1
    shapes = [style["marker"] for style in drawing.entrant_styles(of(made)["ood"])]
    assert len(set(shapes)) == len(shapes) == 4


def test_an_interval_beyond_the_frame_is_said():
    made = MadeBoard(seeds=(0, 1))
    for seed, share in ((0, 0), (1, 60)):
        made.add("m", STEERED[1], seed, "boolq", np.arange(60) < share)
    chart = of(made)["forest"]
    shown = point(chart, STEERED[1], "boolq")
    assert shown.high > chart.limits[1]
    assert any("beyond the frame" in note for note in chart.notes)
    assert chart.limits[0] <= min(one.value for series in chart.panels[0].points for one in series if one)


@given(st.text("abWi-_/,=. \n\t", min_size=1, max_size=60), st.floats(0.5, 3.0))
def test_wrapped_text_fits_and_loses_nothing(text: str, width: float):
    wrapped = wrap(text, width, 8.5)
    assert "".join(wrapped.split()) == "".join(text.split())
    for line in wrapped.split("\n"):
        assert text_width(line, 8.5) <= width + 1e-6 or len(line) == 1
