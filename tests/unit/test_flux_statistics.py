"""What flux says about words: classes, regressions against statsmodels, tables with known effects, the page."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from infosteer_bench.analysis.flux import Token, limits, with_levels
from infosteer_bench.analysis.flux_page import page
from infosteer_bench.analysis.flux_sheets import sheets
from infosteer_bench.analysis.flux_tables import class_table, difference_rows
from infosteer_bench.analysis.regression import correlation, least_squares, mean_ranks
from infosteer_bench.analysis.words import classify


def classes(pieces: list[str], n_prompt: int | None = None, special: tuple[int, ...] = ()) -> list[str]:
    controls = [index in special for index in range(len(pieces))]
    found = classify(pieces, special=controls, n_prompt=len(pieces) if n_prompt is None else n_prompt)
    return [word.word_class for word in found]


def token(position: int, **values: object) -> Token:
    defaults = {
        "model": "m",
        "prompt": "p",
        "position": position,
        "part": "written",
        "token_id": position,
        "text": "x",
        "word": "x",
        "word_class": "content",
        "entropy_nats": 1.0,
        "entropy_share": 0.5,
        "surprisal_nats": 1.0,
        "next_surprisal_nats": 1.0,
    }
    return Token(**{**defaults, **values})  # type: ignore[arg-type]


# --- words


def test_word_classes():
    pieces = ["The", " qu", "bits", ",", " it", "'s", " 3", ".", "5", " cats", " don", "'t", "\n", "\n\n", " (", "of"]
    assert classes(pieces) == [
        "function", "content", "content", "punctuation", "function", "function", "number", "number", "number",
        "content", "function", "function", "punctuation", "punctuation", "punctuation", "function",
    ]  # fmt: skip


def test_blanks_belong_to_the_word_that_follows_and_words_do_not_cross_control_tokens():
    assert classes([" ", "3", "1", "  ", "\n"]) == ["number"] * 3 + ["punctuation"] * 2
    assert classes(["the", "pad", "me", " "], special=(1,)) == ["function", "special", "function", "punctuation"]
    assert classes(["x", "2", "_", "y"]) == ["content", "number", "punctuation", "content"]
    assert classes(["Alice", "'s", " can", "\u2019t", " 1,000"]) == [
        "content",
        "content",
        "function",
        "function",
        "number",
    ]


def test_copied_words_stand_in_the_prompt_and_were_written_after_it():
    pieces = ["Add", " 31", " to", " qu", "arks", ".", "Qu", "arks", " to", " 31", " 32", "."]
    assert classes(pieces, n_prompt=6) == [
        "content", "number", "function", "content", "content", "punctuation",
        "copied", "copied", "function", "copied", "number", "punctuation",
    ]  # fmt: skip
    # a word that begins in the prompt and ends in the answer is the prompt's
    assert classes(["quark", " qu", "ark"], n_prompt=2) == ["content"] * 3


# --- statistics


def panel(rng: np.random.Generator, n: int = 60, texts: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Design (n texts, 3), group, place."""
    design = np.column_stack([np.ones(n * texts), rng.normal(size=n * texts), rng.random(n * texts) < 0.3])
    return design.astype(float), np.repeat(np.arange(texts), n), np.tile(np.arange(n), texts)


def test_regression_equals_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    design, group, place = panel(rng)
    noise = np.concatenate([np.convolve(rng.normal(size=64), np.ones(5) / 2, "valid") for _ in range(4)])
    y = design @ [2.0, 0.5, -1.0] + noise
    ours = least_squares(y, design, group=group, place=place, lags=6)
    reference = api.OLS(y, design)
    settings = {"groups": group, "maxlags": 6, "use_correction": False}
    dependent = reference.fit(cov_type="hac-panel", cov_kwds=settings)
    n, p = design.shape
    assert ours.coefficients == pytest.approx(dependent.params)
    expected = np.maximum(dependent.bse * math.sqrt(n / (n - p)), reference.fit().bse)
    assert ours.errors == pytest.approx(expected)
    assert (dependent.bse > reference.fit().bse).any()
    assert ours.r_squared == pytest.approx(dependent.rsquared)
    assert ours.high - ours.coefficients == pytest.approx(1.959964 * expected, rel=1e-6)


def test_intervals_cover_the_truth_where_neighbours_depend_on_one_another():
    rng = np.random.default_rng(0)
    group, place = np.repeat(np.arange(4), 250), np.tile(np.arange(250), 4)
    hits, naive = 0, 0
    for _ in range(300):
        noise = rng.normal(size=(4, 250))
        for step in range(1, 250):
            noise[:, step] += 0.3 * noise[:, step - 1]
        fit = least_squares(noise.ravel(), np.ones((1000, 1)), group=group, place=place)
        hits += fit.low[0] <= 0 <= fit.high[0]
        half = 1.96 * noise.std() / math.sqrt(1000)
        naive += abs(noise.mean()) <= half
    assert 0.90 <= hits / 300 <= 0.99
    assert naive / 300 < 0.89


def test_too_few_tokens_and_columns_that_repeat_are_refused():
    for design in (np.ones((2, 2)), np.ones((9, 2))):
        with pytest.raises(ValueError, match="apart"):
            least_squares(np.arange(len(design)), design, group=np.zeros(len(design)), place=np.arange(len(design)))


def test_correlations_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    x = rng.integers(0, 9, size=80).astype(float)
    y = x + rng.normal(size=80)
    where = {"group": np.zeros(80), "place": np.arange(80)}
    assert mean_ranks(x) == pytest.approx(stats.rankdata(x))
    for ranks, reference in ((False, stats.pearsonr), (True, stats.spearmanr)):
        found = correlation(x, y, ranks=ranks, **where)
        assert found is not None
        assert found[0] == pytest.approx(reference(x, y)[0])
        assert found[1] < found[0] < found[2]
    assert correlation(np.ones(80), y, **where) is None


def synthetic(class_effect: float, slope: float) -> list[Token]:
    """Marks are less surprising than content words; entropy is 5 + slope * surprisal, plus the effect for marks."""
    rng = np.random.default_rng(5)
    rows = []
    for position in range(200):
        mark = bool(rng.random() < 0.4)
        surprisal = float(rng.exponential() * (0.2 if mark else 1.0))
        entropy = 5.0 + slope * surprisal + class_effect * mark
        rows.append(
            token(
                position,
                word_class="punctuation" if mark else "content",
                entropy_nats=entropy,
                surprisal_nats=surprisal,
                next_surprisal_nats=float(rng.exponential()),
                prompt=f"text {position // 50}",
            )
        )
    return rows


def test_a_class_effect_that_is_only_surprisal_vanishes_beside_it():
    table = class_table(synthetic(class_effect=0.0, slope=0.5))
    (effect,) = [row.effects for row in table.rows if row.word_class == "punctuation"]
    assert effect["alone"].high < -0.2
    assert effect["beside surprisal"].value == pytest.approx(0.0, abs=1e-9)
    assert table.control.value == pytest.approx(0.5)
    assert table.r_squared["surprisal"] == pytest.approx(1.0)
    assert table.correlations["surprisal, Pearson"].value == pytest.approx(1.0)


def test_a_class_effect_that_is_there_stays():
    table = class_table(synthetic(class_effect=-0.3, slope=0.5))
    (row,) = [row for row in table.rows if row.word_class == "punctuation"]
    for control in ("beside surprisal", "beside more controls"):
        assert row.effects[control].value == pytest.approx(-0.3)
    assert row.effects["alone"].value < -0.5
    assert {row.word_class: row.n for row in table.rows}["function"] == 0
    assert next(row for row in table.rows if row.word_class == "function").mean is None


def test_tokens_without_all_numbers_are_not_counted_and_small_classes_get_no_effect():
    rows = synthetic(class_effect=-0.3, slope=0.5)
    rows[0] = replace(rows[0], surprisal_nats=None)
    rows[1] = replace(rows[1], next_surprisal_nats=None)
    rows[2] = replace(rows[2], word_class="special", entropy_nats=1e6)
    rows[3:5] = [replace(row, word_class="number", entropy_nats=1e6) for row in rows[3:5]]
    table = class_table(rows)
    assert table.n == 197
    (number,) = [row for row in table.rows if row.word_class == "number"]
    assert (number.n, number.effects["alone"]) == (2, None)
    (mark,) = [row for row in table.rows if row.word_class == "punctuation"]
    assert mark.effects["beside surprisal"].value == pytest.approx(-0.3)
    assert class_table([replace(row, part="prompt") for row in rows], "written").n == 0


def test_repeated_runs_are_counted():
    rows = [token(n, token_id=n % 10, part="written") for n in range(40)]
    rows[20:] = [replace(row, prompt="q", position=row.position - 20, token_id=100 + row.position) for row in rows[20:]]
    # of text p, tokens 10..16 end runs that begin before its first repetition is complete: 17, 18, 19 do repeat
    assert class_table(rows).repeated == pytest.approx(3 / 40)


def test_models_are_compared_token_by_token():
    first = synthetic(class_effect=-0.3, slope=0.5)
    other = [
        replace(row, model="n", entropy_nats=row.entropy_nats + (0.2 if row.word_class == "content" else 0.1))
        for row in first
    ]
    found = {row.word_class: row for row in difference_rows(first, other)}
    assert found["content"].difference.value == pytest.approx(0.2)
    assert found["punctuation"].difference.value == pytest.approx(0.1)
    assert found["all"].n == 200
    assert found["number"].difference is None


# --- levels and page


def test_levels_are_thirds_of_one_models_tokens_without_control_tokens():
    rows = [token(n, entropy_nats=float(n), surprisal_nats=None if n == 0 else float(9 - n)) for n in range(9)]
    rows.append(token(9, entropy_nats=-50.0, word_class="special"))
    found = with_levels(rows)
    assert [row.level for row in found] == ["low"] * 3 + ["medium"] * 3 + ["high"] * 3 + [None]
    assert [row.surprisal_level for row in found][:2] == [None, "high"]
    assert limits(rows)[0] == pytest.approx((8 / 3, 16 / 3))


def test_the_page_holds_no_markup_of_a_token():
    rows = with_levels(
        [
            token(n, text=text, word=text, prompt="<b>p</b>")
            for n, text in enumerate(["<script>", '"&', "\n", "", " ok"])
        ]
    )
    text = page({"<i>model</i>": rows, "two": rows}, sheets(class_table(rows)))
    assert "<script" not in text.lower()
    for harmless in ("&lt;script&gt;", "&quot;&amp;", "&lt;b&gt;p&lt;/b&gt;", "&lt;i&gt;model&lt;/i&gt;"):
        assert harmless in text
    assert "http" not in text
    assert text.count('class="text"') == 2
