"""A model's answers without the model: what is stored is scored again, and nothing is asked.

lm = stored_lm(run_dir, checkpoint_key, given, eval_config=eval_config)
results = evaluate_tasks(lm, tasks, asking)          # a task with an answer missing has NotStored as its outcome
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.data.render import RENDERER_VERSION
from infosteer_bench.evaluation.answers import ANSWERS_VERSION, AnswerStore, Score, stored_answers
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.evaluation.lm import Ask, EngineLM, Pair
from infosteer_bench.grid import EvalConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class NotStored(Exception):
    """An answer that scoring needs was never stored."""


@dataclass(frozen=True)
class Answerer:
    """By whom answers were given: a checkpoint's weights, with what its method does while answering, and an engine."""

    weights: str
    runtime: dict[str, Any] | None
    engine: str
    dtype: str


class StoredLM(EngineLM):
    """Knows what is in `answers`, and nothing else. tokenizer: needed for chat templates only."""

    def before_asking(self, missing: int, total: int) -> None:
        """Raises NotStored if anything is missing."""
        if missing:
            raise NotStored(f"{missing} of {total} answers are not stored")

    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        """Nothing can be asked; there is nothing to give but for no questions."""
        self.before_asking(len(asks), len(asks))
        yield from ()

    def score_ids(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[int, Score]]]:
        """As `generate_ids`; whole texts (loglikelihood_rolling) are not stored."""
        self.before_asking(len(pairs), len(pairs))
        yield from ()


def stored_lm(
    run_dir: Path,
    checkpoint: str,
    given: Answerer,
    *,
    eval_config: EvalConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> StoredLM | None:
    """An LM over the answers kept for a checkpoint in a run's folder; None where there are none as `given`.

    Where the window changed between versions, the file with the most answers counts.
    """
    stores = [store for store in stored_answers(run_dir, checkpoint) if _fits(store, given)]
    if not stores:
        return None
    store = max(stores, key=len)
    assert store.asked is not None
    # the tokenizer is asked for nothing but a chat template
    lm = StoredLM(tokenizer, eval_config=eval_config, max_length=store.asked.window, eos_ids=())  # type: ignore[arg-type]
    lm.answers = store
    return lm


def _fits(store: AnswerStore, given: Answerer) -> bool:
    asked = store.asked
    return (
        asked is not None
        and given == Answerer(asked.weights, asked.runtime, asked.engine, asked.dtype)
        and (asked.renderer, asked.version) == (RENDERER_VERSION, ANSWERS_VERSION)
    )
