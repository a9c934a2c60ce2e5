"""Does the flux follow the kind of word, or only how predictable it is? Tables by word class, surprisal as control.

    table = class_table(tokens)                       # one model's tokens

The effect of a class is how many nats its tokens' mean entropy lies above that of content words, from least squares on
one column per class: alone; beside the token's surprisal; and beside surprisal and its rank (it is skewed), the same of
the next token, the logarithm of the position (early positions attend to little), whether the token repeats what stands
before (`LOOP`), and one column per text. If effects
vanish beside surprisal, the flux tells no more than predictability does. The paper has no such control (6.2).

Counted are tokens that have all three numbers: no control token, not the first or last of a text. A class with fewer
than `LEAST` of them is shown, but gets no effect, and its tokens stay out of the fits. A missing number is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infosteer_bench.analysis.flux import Token
from infosteer_bench.analysis.regression import Array, Fit, correlation, least_squares, mean_ranks
from infosteer_bench.analysis.words import CLASSES, SPECIAL

BASELINE = "content"
LEAST = 5
CONTROLS: dict[str, tuple[str, ...]] = {
    "alone": (),
    "beside surprisal": ("surprisal",),
    "beside more controls": (
        "surprisal",
        "surprisal rank",
        "next surprisal",
        "next surprisal rank",
        "log position",
        "repeated",
    ),
}
TEXTS_TOO = "beside more controls"
SCOPES = ("all", "written")
LOOP = 8
"""Tokens in a row that must stand in the text before, for the last of them to count as repeated."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassRow:
    """One word class. mean, surprisal: of its tokens, nats. effects: by control, nats above content words."""

    word_class: str
    n: int
    mean: float | None
    share: float | None
    surprisal: float | None
    effects: dict[str, Estimate | None]


@dataclass(frozen=True)
class ClassTable:
    """One model's tokens, all of them or the written ones.

    correlations: of entropy with surprisal and with the next token's, Pearson and by rank. r_squared: share of the
    entropy's variance that the named columns take; control: nats of entropy per nat of surprisal beside the classes.
    repeated: share of these tokens that end a run of `LOOP` tokens which the text held before.
    """

    model: str
    scope: str
    n: int
    n_texts: int
    correlations: dict[str, Estimate | None]
    r_squared: dict[str, float | None]
    control: Estimate | None
    repeated: float | None
    rows: tuple[ClassRow, ...]


@dataclass(frozen=True)
class DifferenceRow:
    """A model's entropy minus the first model's on the same tokens of one class ("all": of every class), nats."""

    model: str
    word_class: str
    n: int
    difference: Estimate | None


def counted(tokens: Iterable[Token], scope: str = "all") -> list[Token]:
    """The tokens that statistics are of."""
    return [
        token
        for token in tokens
        if token.word_class != SPECIAL
        and token.surprisal_nats is not None
        and token.next_surprisal_nats is not None
        and (scope == "all" or token.part == scope)
    ]


def class_table(tokens: Sequence[Token], scope: str = "all") -> ClassTable:
    """Table of one model's tokens. scope: all, or written for those after the prompts."""
    model = tokens[0].model if tokens else ""
    loops = _repeated(tokens)
    tokens = counted(tokens, scope)
    repeated = [(token.prompt, token.position) in loops for token in tokens]
    columns = _Columns(tokens, repeated=repeated)
    sizes = {name: int((columns.classes == name).sum()) for name in CLASSES}
    large = [name for name in CLASSES if sizes[name] >= LEAST]
    kept = columns.where(np.isin(columns.classes, large))
    fits = {
        control: _effects(kept, large, names, texts_too=control == TEXTS_TOO) for control, names in CONTROLS.items()
    }
    surprisal_alone = kept.fit([np.ones(len(kept)), kept.values["surprisal"]])
    return ClassTable(
        model=model,
        scope=scope,
        n=len(tokens),
        n_texts=len({token.prompt for token in tokens}),
        correlations=columns.correlations(),
        r_squared={
            "classes": fits["alone"][1],
            "surprisal": surprisal_alone.r_squared if surprisal_alone else None,
            "classes and surprisal": fits["beside surprisal"][1],
        },
        control=fits["beside surprisal"][2],
        repeated=sum(repeated) / len(repeated) if repeated else None,
        rows=tuple(
            ClassRow(
                name,
                sizes[name],
                columns.mean("entropy", name),
                columns.mean("share", name),
                columns.mean("surprisal", name),
                {control: effects.get(name) for control, (effects, _, _) in fits.items()},
            )
            for name in CLASSES
        ),
    )


def difference_rows(first: Sequence[Token], other: Sequence[Token]) -> list[DifferenceRow]:
    """Per class, and over all: the other model's entropy minus the first's, on the same tokens."""
    pairs = [(a, b) for a, b in zip(first, other, strict=True) if a.word_class != SPECIAL]
    columns = _Columns([a for a, _ in pairs], entropy=[b.entropy_nats - a.entropy_nats for a, b in pairs])
    model = other[0].model if other else ""
    rows = []
    for name in ("all", *CLASSES):
        inside = columns if name == "all" else columns.where(columns.classes == name)
        fit = inside.fit([np.ones(len(inside))]) if len(inside) >= LEAST else None
        rows.append(DifferenceRow(model, name, len(inside), _estimate(fit, 0)))
    return rows


def _repeated(tokens: Sequence[Token]) -> set[tuple[str, int]]:
    """(text, position) of the tokens that end a run which the same text held before."""
    found: set[tuple[str, int]] = set()
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for index in range(LOOP - 1, len(tokens)):
        run = tokens[index - LOOP + 1 : index + 1]
        if run[0].prompt != run[-1].prompt:
            continue
        key = run[-1].prompt, tuple(token.token_id for token in run)
        if key in seen:
            found.add((run[-1].prompt, run[-1].position))
        seen.add(key)
    return found


class _Columns:
    """Tokens as arrays (n,): values by name, classes, and which text and position each is of."""

    def __init__(
        self,
        tokens: Sequence[Token],
        *,
        entropy: Sequence[float] | None = None,
        repeated: Sequence[float] | None = None,
    ) -> None:
        self.tokens = tokens
        self.classes = np.array([token.word_class for token in tokens], dtype=object)
        self.values: dict[str, Array] = {
            "entropy": np.array(entropy if entropy is not None else [token.entropy_nats for token in tokens]),
            "share": np.array([token.entropy_share for token in tokens]),
            "surprisal": _numbers(token.surprisal_nats for token in tokens),
            "next surprisal": _numbers(token.next_surprisal_nats for token in tokens),
            "log position": np.array([math.log(token.position + 1) for token in tokens]),
            "repeated": np.array(repeated if repeated is not None else [0.0] * len(tokens), dtype=np.float64),
        }
        for name in ("surprisal", "next surprisal"):
            self.values[f"{name} rank"] = mean_ranks(self.values[name]) / max(len(tokens), 1)
        names = list(dict.fromkeys(token.prompt for token in tokens))
        self.texts = np.array([names.index(token.prompt) for token in tokens], dtype=np.int64)
        self.places = np.array([token.position for token in tokens])

    def __len__(self) -> int:
        return len(self.tokens)

    def where(self, mask: np.ndarray) -> _Columns:
        chosen = [token for token, inside in zip(self.tokens, mask, strict=True) if inside]
        mask = mask.astype(bool)
        return _Columns(
            chosen, entropy=list(self.values["entropy"][mask]), repeated=list(self.values["repeated"][mask])
        )

    def mean(self, name: str, word_class: str) -> float | None:
        inside = self.classes == word_class
        return float(self.values[name][inside].mean()) if inside.any() else None

    def fit(self, columns: Sequence[Array]) -> Fit | None:
        """Of entropy on these columns; None where there are too few tokens to tell the columns apart."""
        try:
            design = np.column_stack(columns)
            return least_squares(self.values["entropy"], design, group=self.texts, place=self.places)
        except ValueError:
            return None

    def correlations(self) -> dict[str, Estimate | None]:
        found: dict[str, Estimate | None] = {}
        for name in ("surprisal", "next surprisal"):
            for kind, ranks in (("Pearson", False), ("rank", True)):
                pair = self.values[name], self.values["entropy"]
                result = correlation(*pair, group=self.texts, place=self.places, ranks=ranks)
                found[f"{name}, {kind}"] = Estimate(*result) if result else None
        return found


def _effects(
    columns: _Columns, large: Sequence[str], controls: Sequence[str], *, texts_too: bool
) -> tuple[dict[str, Estimate | None], float | None, Estimate | None]:
    """Effect of every class but the baseline, the fit's R squared, and the first control's slope."""
    others = [name for name in large if name != BASELINE]
    if BASELINE not in large or not others:
        return {}, None, None
    dummies = [(columns.classes == name).astype(np.float64) for name in others]
    texts = [(columns.texts == text).astype(np.float64) for text in np.unique(columns.texts)[1:]] if texts_too else []
    beside = [columns.values[name] for name in controls if np.ptp(columns.values[name]) > 0]
    fit = columns.fit([np.ones(len(columns)), *dummies, *beside, *texts])
    if fit is None:
        return {}, None, None
    effects = {name: _estimate(fit, index) for index, name in enumerate(others, 1)}
    return effects, fit.r_squared, _estimate(fit, len(others) + 1) if beside else None


def _estimate(fit: Fit | None, index: int) -> Estimate | None:
    if fit is None:
        return None
    return Estimate(float(fit.coefficients[index]), float(fit.low[index]), float(fit.high[index]))


def _numbers(values: Iterable[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values])
