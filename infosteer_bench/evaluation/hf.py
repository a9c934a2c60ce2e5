"""Engine `hf`: a transformers model, decoding greedily in batches sorted by length, longest first.

Unlike lm-eval's own HFLM it says how every answer ended, mixes tasks in a batch, lets rows leave it when they end, and
gives the same answers whatever the batch size (float32; in bf16 a near tie may fall the other way).

Shapes: B batch, P padded prompt length, V vocabulary.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation.answers import Score
from infosteer_bench.evaluation.engine import MAX_CONTEXT
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.evaluation.hf_decode import write
from infosteer_bench.evaluation.lm import Ask, EngineLM, Pair, end_token_ids, window
from infosteer_bench.evaluation.quiet import quiet
from infosteer_bench.grid import EvalConfig
from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import family_of
from infosteer_bench.models.load import load_model, load_tokenizer
from infosteer_bench.records import canonical_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
T = TypeVar("T")

"""Newest tokens whose text is searched for a stop string at every step; more where a stop string is longer."""


class HFEngine:
    """See `engine.Engine`. On the GPU where there is one, else on the CPU."""

    name, shards = "hf", 1

    def __init__(self, eval_config: EvalConfig) -> None:
        self.eval_config = eval_config
        self.dtype: str = eval_config.dtype
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.engine_starts = self.engine_swaps = 0
        self._lm: HFLM | None = None
        self._loaded: tuple[Path, str, str] | None = None
        self._steering = ExitStack()

    @property
    def lm(self) -> EngineLM:
        """The loaded model. Raises RuntimeError before the first `load`."""
        if self._lm is None:
            raise RuntimeError("no model is loaded")
        return self._lm

    def load(self, checkpoint: Path, *, weight_digest: str, runtime: dict[str, Any] | None) -> None:
        """See `engine.Engine.load`; the old model is freed before the new one is read."""
        wanted = (checkpoint, weight_digest, canonical_json(runtime))
        if self._loaded == wanted:
            return
        self.close()
        with quiet():
            model = load_model(checkpoint, dtype=self.dtype).to(self.device)  # type: ignore[arg-type]
            tokenizer = load_tokenizer(checkpoint)
            ends = end_token_ids(checkpoint, tokenizer)
        self.engine_starts += 1
        limit = window(checkpoint, MAX_CONTEXT)
        self._lm = HFLM(model, tokenizer, eval_config=self.eval_config, max_length=limit, eos_ids=ends)
        if runtime is not None:  # a method that steers while answering too
            method = METHODS.get(runtime["name"]).configure(runtime["settings"])
            self._steering.enter_context(method.attach(model, family_of(model.config)))
        self._loaded = wanted

    def close(self) -> None:
        """Free the model, its hooks first."""
        self._steering.close()
        self._lm = self._loaded = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class HFLM(EngineLM):
    """An lm_eval LM over one transformers model."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> None:
        super().__init__(tokenizer, **kwargs)
        self.model = model.eval()
        self._device = model.device
        self._batch_size = self.eval_config.batch_size
        # Any token would do: padding is masked out.
        self._pad_id: int = (
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eot_token_id
        )

    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        """See `EngineLM.generate_ids`; tasks share batches, however their answers end."""
        lengths = [len(ask.ids) + ask.max_new_tokens for ask in asks]
        for members, found in self._in_batches(list(asks), lengths=lengths, run=self._generate_batch):
            yield list(zip(members, found, strict=True))

    def _generate_batch(self, asks: list[Ask]) -> list[Generation]:
        ids, mask = self._left_padded([ask.ids for ask in asks])  # (B, P)
        with quiet():
            written = write(self.model, self, asks, ids, mask)
        return [
            self.finish(row, stops=ask.stops, stop_ids=ask.stop_ids) for ask, row in zip(asks, written, strict=True)
        ]

    @torch.inference_mode()
    def score_ids(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[int, Score]]]:
        """See `EngineLM.score_ids`. Pairs that differ in their last token only (most answer options) share a row."""
        shared: dict[tuple[int, ...], list[int]] = {}
        for index, (context, continuation) in enumerate(pairs):
            shared.setdefault((*context, *continuation[:-1]), []).append(index)
        inputs = list(shared)

        def score(batch: list[tuple[int, ...]]) -> list[list[tuple[int, Score]]]:
            return self._score_batch(batch, [[(i, pairs[i][1]) for i in shared[row]] for row in batch])

        for _, found in self._in_batches(inputs, lengths=list(map(len, inputs)), run=score):
            yield [item for row in found for item in row]

    def _score_batch(
        self, inputs: Sequence[Sequence[int]], wanted: list[list[tuple[int, list[int]]]]
    ) -> list[list[tuple[int, Score]]]:
        ids, mask = self._left_padded(inputs)
        keep = max(len(continuation) for row in wanted for _, continuation in row)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep, use_cache=False
        ).logits  # (B, keep, V): left padding puts every row's last token at the end
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        results = []
        for row, continuations in enumerate(wanted):
            scores = []
            for index, continuation in continuations:
                there = log_probs[row, -len(continuation) :]
                target = torch.tensor(continuation, device=there.device)
                total = there.gather(1, target[:, None]).sum().item()
                scores.append((index, Score(total, bool((there.argmax(-1) == target).all()))))
            results.append(scores)
        return results

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both (B, P), padding on the left."""
        width = max(map(len, rows))
        ids = torch.tensor([[self._pad_id] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.model.device), mask.to(self.model.device)

    def _in_batches(
        self, items: list[Any], *, lengths: list[int], run: Callable[[list[Any]], list[T]]
    ) -> Iterator[tuple[list[int], list[T]]]:
        """`run` over batches of similar length, longest first: places in `items`, and what `run` gave for them.

        lengths: tokens that each row will hold. A batch is eval.batch_size rows and eval.batch_tokens tokens at most.
        Out of memory halves the batch size, for good. Raises CellFailure if one row alone does not fit.
        """
        order = sorted(range(len(items)), key=lambda i: -lengths[i])
        while order:
            rows = min(self._batch_size, self.eval_config.batch_tokens // lengths[order[0]])
            members = order[: max(1, rows)]
            try:
                found = run([items[i] for i in members])
            except (
                RuntimeError
            ) as error:  # torch.OutOfMemoryError is one; on a CPU the allocator's has no type of its own
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
                if len(members) == 1:
                    raise CellFailure(f"out of memory on a single row of {lengths[members[0]]} tokens") from error
                self._batch_size = max(1, len(members) // 2)
                log.warning("out of memory: batch size is now %d", self._batch_size)
                found = None
            if found is None:  # outside the handler, whose traceback holds on to the failed batch's tensors
                gc.collect()
                torch.cuda.empty_cache()
                continue
            del order[: len(members)]
            yield members, found
