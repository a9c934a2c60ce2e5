"""An engine without a model: it says what it is told to, item by item, and keeps the prompts it was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.evaluation.engine import MAX_CONTEXT
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.evaluation.lm import Ask, EngineLM, Pair

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from infosteer_bench.evaluation.answers import Score
    from infosteer_bench.grid import EvalConfig


class ScriptedEngine:
    """See `evaluation.engine.Engine`. answers: by doc_id. favoured: by doc_id, the option whose trained answer gets the
    higher likelihood. cut: whether answers are said to end at the token limit."""

    name, dtype, shards = "scripted", "float32", 1

    def __init__(self, answers: Sequence[str], *, favoured: Sequence[str], cut: bool, eval_config: EvalConfig) -> None:
        self.engine_starts = self.engine_swaps = 0
        self._lm = _ScriptedLM(answers, favoured=favoured, cut=cut, eval_config=eval_config)

    @property
    def lm(self) -> EngineLM:
        """What lm-eval talks to."""
        return self._lm

    @property
    def prompts(self) -> list[str]:
        """The prompts of all generations so far, by doc_id."""
        return [self._lm.seen[place] for place in sorted(self._lm.seen)]

    def load(self, checkpoint: Path, *, weight_digest: str, runtime: dict[str, Any] | None) -> None:
        """There is no model to replace."""

    def close(self) -> None:
        """Nothing is held."""


class _ScriptedLM(EngineLM):
    def __init__(self, answers: Sequence[str], *, favoured: Sequence[str], cut: bool, eval_config: EvalConfig) -> None:
        super().__init__(None, eval_config=eval_config, max_length=MAX_CONTEXT, eos_ids=())  # type: ignore[arg-type]
        self.script, self.favoured, self.cut = answers, favoured, cut
        self.seen: dict[int, str] = {}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Generation]:  # type: ignore[override]  # noqa: ARG002
        """The script's answer to each item, whatever it was asked."""
        found: list[Generation] = []
        for request in requests:
            place, context = _doc_id(request), str(request.args[0])
            self.seen[place] = context
            reason = "length" if self.cut else "stop"
            found.append(Generation(self.script[place], finish_reason=reason, n_tokens=1))
        return found

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # type: ignore[override]  # noqa: ARG002
        """0 nats for the favoured option in the words that training teaches, less for all else."""
        wanted = [f"the correct answer is {self.favoured[_doc_id(request)]}" for request in requests]
        given: list[Any] = [request.args for request in requests]
        return [(0.0 if args[1] == text else -1.0, False) for args, text in zip(given, wanted, strict=True)]

    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        """Never asked: there are no tokens."""
        raise NotImplementedError

    def score_ids(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[int, Score]]]:
        """Never asked: there are no tokens."""
        raise NotImplementedError


def _doc_id(request: Instance) -> int:
    assert request.doc_id is not None
    return request.doc_id
