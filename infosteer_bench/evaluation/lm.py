"""The lm_eval LM that both engines share: encoding, stop strings, what is asked and what is known already.

lm-eval hands over the requests of all tasks of a kind at once, so they are one queue. An engine adds two primitives.

Legend: a prompt is its token ids, with exactly one BOS where the tokenizer adds one (`data.render.encode`, the function
that training uses too). Continuations are tokenised apart from their context and joined, as in training.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM

from infosteer_bench.data.render import encode_batch
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation.answers import Answer, AnswerStore, Score, request_key
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.grid import EvalConfig

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens")
OnProgress = Callable[[int, int], None]
Pair = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation."""


class Ask(NamedTuple):
    """One answer to write: the prompt's token ids, and what ends it."""

    ids: list[int]
    stops: tuple[str, ...]
    stop_ids: tuple[int, ...]
    max_new_tokens: int


class EngineLM(TemplateLM):
    """An lm_eval LM over token ids; greedy only.

    max_length: tokens of prompt and answer together. eos_ids: every token that ends an answer.
    on_progress: called with (done, total) requests of the running kind. n_cut_prompts: prompts that had to lose tokens
    on the left to fit the window. answers: where answers are looked up before anything is asked, and kept; None keeps
    none. engine_s: the engine's seconds behind all answers given so far, by task.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, eval_config: EvalConfig, max_length: int, eos_ids: Sequence[int]
    ) -> None:
        super().__init__()
        self.tokenizer: Any = tokenizer
        self.eval_config = eval_config
        self.max_length = max_length
        self.eos_ids = tuple(eos_ids)
        self.on_progress: OnProgress | None = None
        self.n_cut_prompts = 0
        self.answers: AnswerStore | None = None
        self.engine_s: defaultdict[str, float] = defaultdict(float)

    # --- what an engine implements: batches of (place among what was asked, answer), as they finish

    @abstractmethod
    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        """Greedy answers; text is decoded without special tokens and cut at a stop string."""

    @abstractmethod
    def score_ids(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[int, Score]]]:
        """For each (context, continuation) the continuation's score."""

    # --- what lm_eval calls

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Generation]:  # type: ignore[override]  # noqa: ARG002
        """Greedy answers. Raises UserError for a task that asks for sampling."""
        given: list[Any] = [request.args for request in requests]
        endings = [self._settings(options) for _, options in given]
        keys = [request_key("generate", args[0], ending) for args, ending in zip(given, endings, strict=True)]
        store = self._store()
        missing = {
            key: (args[0], *ending) for key, args, ending in zip(keys, given, endings, strict=True) if key not in store
        }
        self.before_asking(len(missing), len(set(keys)))
        prompts = encode_batch(self.tokenizer, [text for text, _, _ in missing.values()], None) if missing else []
        asks: list[Ask] = []
        for (ids, _), (_, stops, max_new_tokens) in zip(prompts, missing.values(), strict=True):
            special, plain = self._split_stops(stops)
            fitted = self._fit(ids or [self.prefix_token_id], room=max_new_tokens)
            asks.append(Ask(fitted, tuple(plain), tuple(sorted({*self.eos_ids, *special})), max_new_tokens))
        self._keep(store, list(missing), self.generate_ids(asks), total=len(set(keys)))
        return [cast("Generation", answer) for answer in self._given(store, requests, keys)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Log-probability of continuations after contexts, and whether greedy decoding would write them."""
        given: list[Any] = [request.args for request in requests]
        keys = [request_key("score", *args) for args in given]
        store = self._store()
        missing = {key: args for key, args in zip(keys, given, strict=True) if key not in store}
        self.before_asking(len(missing), len(set(keys)))
        # All texts are tokenised here, in two calls: options share their context, and items their options.
        contexts = list(dict.fromkeys(context for context, _ in missing.values()))
        continuations = list(dict.fromkeys(continuation for _, continuation in missing.values()))
        encoded = encode_batch(self.tokenizer, contexts, None) if contexts else []
        heads = dict(zip(contexts, (ids for ids, _ in encoded), strict=True))
        tails = self.tokenizer(continuations, add_special_tokens=False)["input_ids"] if continuations else []
        ends = dict(zip(continuations, map(list, tails), strict=True))
        pairs: list[Pair] = []
        for context, continuation in missing.values():
            head, tail = heads[context] or [self.prefix_token_id], ends[continuation]
            if not tail:
                raise ValueError(f"continuation {continuation!r} of {context[-40:]!r} has no tokens")
            # vLLM scores no prompt that fills its window: it always writes a token behind
            pairs.append((self._fit(head, room=len(tail) + 1), tail))
        self._keep(store, list(missing), self.score_ids(pairs), total=len(set(keys)))
        return [cast("Score", answer) for answer in self._given(store, requests, keys)]

    def before_asking(self, missing: int, total: int) -> None:
        """Called before `missing` of `total` requests go to the engine; may raise to keep them from it."""

    def _store(self) -> AnswerStore:
        return AnswerStore() if self.answers is None else self.answers

    def _keep(self, store: AnswerStore, keys: list[str], batches: Any, *, total: int) -> None:
        """Take the engine's answers to the requests `keys` as they come; its time goes to them in equal parts."""
        done = total - len(keys)
        if done:  # known already
            self.report(done, total)
        with store.flushed(), closing(batches):
            before = time.monotonic()
            for batch in batches:
                now = time.monotonic()
                for place, answer in batch:
                    store.add(keys[place], answer, seconds=(now - before) / len(batch))
                before, done = now, done + len(batch)
                self.report(done, total)

    def _given(self, store: AnswerStore, requests: list[Instance], keys: list[str]) -> Iterator[Answer]:
        """The answers in order. A task's time is that of its different requests; shared ones count for each task."""
        counted: set[tuple[str, str]] = set()
        for request, key in zip(requests, keys, strict=True):
            answer, seconds = store[key]
            task = request.task_name or ""
            if (task, key) not in counted:
                self.engine_s[task] += seconds
            counted.add((task, key))
            yield answer

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-probability of whole texts, in disjoint windows where they do not fit."""
        totals = []
        for (text,) in [request.args for request in requests]:
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 2,  # with the token before it still one short of the window, as above
                context_len=1,
            )
            parts = self.score_ids([utils.make_disjoint_window(window) for window in windows])
            totals.append(sum(score.log_probability for batch in parts for _, score in batch))
        return totals

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        """Not reached: `loglikelihood` does it all."""
        raise NotImplementedError

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:  # noqa: ARG002
        """Token ids: as a prompt (with its BOS), or of the bare text where add_special_tokens is False."""
        if add_special_tokens is False:
            return list(self.tokenizer(string, add_special_tokens=False)["input_ids"])
        return encode_batch(self.tokenizer, [string], None)[0][0]

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.eos_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before an empty context: BOS, or EOS for a tokenizer without."""
        return self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eot_token_id

    @property
    def max_gen_toks(self) -> int:
        """New tokens of a task that does not say."""
        return self.eval_config.max_new_tokens

    @property
    def tokenizer_name(self) -> str:
        """Used by lm-eval to tell request caches apart."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation in the model's own template."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    # --- helpers

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens."""
        return self.decode_rows(np.asarray([ids], dtype=np.int64))[0]

    def decode_rows(self, ids: np.ndarray) -> list[str]:
        """`decode` of each row of an array; a list of numbers the tokenizer would check number by number."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def finish(self, ids: list[int], *, stops: Sequence[str], stop_ids: Sequence[int]) -> Generation:
        """New tokens as an answer: up to the first of `stop_ids`, if any, then up to the first stop string."""
        end = next((place for place, token in enumerate(ids) if token in stop_ids), None)
        text, cut = cut_at_stop(self.decode(ids[:end]), stops)
        return Generation(
            text,
            finish_reason="length" if end is None and not cut else "stop",
            n_tokens=len(ids) if end is None else end + 1,
        )

    def report(self, done: int, total: int) -> None:
        """Tell whoever listens how far the running kind of requests is."""
        if self.on_progress is not None:
            self.on_progress(done, total)

    def _settings(self, options: dict[str, Any]) -> tuple[tuple[str, ...], int]:
        """Stop strings and new tokens of a request's generation_kwargs."""
        if options.get("do_sample") or options.get("temperature") not in (None, 0, 0.0):
            raise UserError(
                f"the task asks for sampling (generation_kwargs {options})",
                allowed="greedy decoding: do_sample: false, no temperature",
            )
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        # A window too short for the answers asked for still leaves half of itself to the prompt.
        cap = min(self.eval_config.max_new_tokens, max(1, self.max_length // 2))
        return tuple(stop for stop in stops if stop), new_tokens(options, cap)

    def _split_stops(self, stops: Sequence[str]) -> tuple[list[int], list[str]]:
        """Stop strings that are one special token (decoding would hide their text) as ids, and the others."""
        ids, plain = [], []
        special = {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        for stop in stops:
            if stop in special:
                ids.append(special[stop])
            else:
                plain.append(stop)
        return ids, plain

    def _fit(self, ids: list[int], *, room: int) -> list[int]:
        """`ids` such that `room` more tokens fit the window: the oldest go first, BOS stays."""
        keep = self.max_length - room
        if len(ids) <= keep:
            return ids
        if keep < 2:
            raise ValueError(f"a continuation of {room} tokens does not fit the window of {self.max_length}")
        self.n_cut_prompts += 1
        log.warning("a prompt of %d tokens was cut on the left to %d", len(ids), keep)
        head = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
        return head + ids[len(ids) - keep + len(head) :]


def new_tokens(options: dict[str, Any], cap: int) -> int:
    """How many tokens generation_kwargs allow, under any of lm-eval's names for it, and at most `cap`."""
    return min([cap, *(int(options[name]) for name in TOKEN_LIMITS if options.get(name))])


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """`text` up to the first place where any stop string begins, and whether there is one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def end_token_ids(checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every end-of-sequence id that generation_config.json, config.json or the tokenizer names."""
    from transformers import AutoConfig, GenerationConfig

    named: list[Any] = [tokenizer.eos_token_id, AutoConfig.from_pretrained(str(checkpoint)).eos_token_id]
    if (checkpoint / "generation_config.json").is_file():
        named.append(GenerationConfig.from_pretrained(str(checkpoint)).eos_token_id)
    flat = [item for value in named for item in (value if isinstance(value, list | tuple) else [value])]
    return sorted({item for item in flat if item is not None})


def window(checkpoint: Path, limit: int) -> int:
    """The model's context length, at most `limit`."""
    from transformers import AutoConfig

    own = getattr(AutoConfig.from_pretrained(str(checkpoint)), "max_position_embeddings", None)
    return min(own, limit) if own else limit
