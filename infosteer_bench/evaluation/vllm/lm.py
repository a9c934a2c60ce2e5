"""The lm_eval LM over a live vLLM engine: requests go in together, answers come out as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation.answers import CHUNK, Score
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.evaluation.lm import Ask, EngineLM, Pair
from infosteer_bench.evaluation.vllm.process import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VLLMLM(EngineLM):
    """An lm_eval LM over a vllm.LLM.

    on_failure: called when answering breaks off, as the engine may hold the rest or be dead; returns what the engine's
    processes had to say of it, or None.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        on_failure: Callable[[], str | None],
        steered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.llm, self.on_failure, self.steered = llm, on_failure, steered
        self._streams = 0

    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        """See `EngineLM.generate_ids`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        requests = [
            (
                ask.ids,
                SamplingParams(
                    temperature=0.0,
                    max_tokens=ask.max_new_tokens,
                    stop=list(ask.stops) or None,
                    stop_token_ids=list(ask.stop_ids) or None,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                ),
            )
            for ask in asks
        ]
        for batch in self._run(requests):
            yield [
                (
                    place,
                    self.finish(list(out.outputs[0].token_ids), stops=asks[place].stops, stop_ids=asks[place].stop_ids),
                )
                for place, out in batch
            ]

    def score_ids(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[int, Score]]]:
        """See `EngineLM.score_ids`; the logprobs of the prompt's own tokens, from one prefill each."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        settings = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for batch in self._run([(context + continuation, settings) for context, continuation in pairs]):
            yield [(place, _score(*pairs[place], output)) for place, output in batch]

    def _run(self, requests: list[tuple[list[int], Any]]) -> Iterator[list[tuple[int, Any]]]:
        """Finished outputs with their places among `requests`, as they finish; the longest prompts go first.

        Answers of a steered model are held back, a chunk at a time, until its hooks are known to have run.
        """
        order = sorted(range(len(requests)), key=lambda place: -len(requests[place][0]))
        if not self.steered:
            yield from self._stream(order, requests)
            return
        for start in range(0, len(order), CHUNK):
            before = self._hook_runs()
            held = [item for batch in self._stream(order[start : start + CHUNK], requests) for item in batch]
            if self._hook_runs() <= before:
                self.on_failure()
                raise CellFailure("vllm answered without running the method's hooks; nothing of it is kept")
            yield held

    def _stream(self, order: list[int], requests: list[tuple[list[int], Any]]) -> Iterator[list[tuple[int, Any]]]:
        """As `LLM.generate` does it, but what is finished does not wait for what is not."""
        engine, whole = self.llm.llm_engine, False
        self._streams += 1
        places = {f"{self._streams}-{place}": place for place in order}  # never an id of an earlier, broken-off stream
        try:
            for name, place in places.items():
                ids, settings = requests[place]
                engine.add_request(name, {"prompt_token_ids": ids}, settings)
            while engine.has_unfinished_requests():
                finished = [(places.pop(output.request_id), output) for output in engine.step() if output.finished]
                if finished:
                    yield finished
            whole = True
        except Exception as error:
            whole = True
            cause = self.on_failure() or f"{type(error).__name__}: {first_line(error)}"
            raise CellFailure(f"vllm failed while answering: {cause}") from error
        finally:
            if not whole:  # where whoever takes the answers failed: the engine still holds the rest
                self.on_failure()
        if places:
            raise CellFailure(f"vllm left {len(places)} of {len(order)} requests without an answer")

    def _hook_runs(self) -> int:
        """How often hooks of a method that steers while answering have run; 0 without one."""
        return (self.llm.collective_rpc("steering_invocations")[0] or 0) if self.steered else 0


def _score(context: list[int], continuation: list[int], output: Any) -> Score:
    there = output.prompt_logprobs[len(context) :]
    found = [entry[token] for entry, token in zip(there, continuation, strict=True)]
    return Score(sum(item.logprob for item in found), all(item.rank == 1 for item in found))
