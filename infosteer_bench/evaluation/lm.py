"""The lm_eval LM that both engines share: encoding, stop strings, request handling. An engine adds two primitives.

Legend: a prompt is its token ids, with exactly one BOS where the tokenizer adds one (`data.render.encode`, the function
that training uses too). Continuations are tokenised apart from their context and joined, as in training.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM

from infosteer_bench.data.render import encode_batch
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation.engine import Generation
from infosteer_bench.grid import EvalConfig

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens")
OnProgress = Callable[[int, int], None]


class EngineLM(TemplateLM):
    """An lm_eval LM over token ids; greedy only.

    max_length: tokens of prompt and answer together. eos_ids: every token that ends an answer.
    on_progress: called with (done, total) requests of the running kind. n_cut_prompts: prompts that had to lose tokens
    on the left to fit the window.
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
        self._heads: dict[str, list[int]] = {}  # ids of contexts and of continuations, while likelihoods are asked for
        self._tails: dict[str, list[int]] = {}

    # --- what an engine implements

    @abstractmethod
    def generate_ids(
        self, prompts: list[list[int]], *, stops: list[str], stop_ids: list[int], max_new_tokens: int
    ) -> list[Generation]:
        """Greedy answers in the order of `prompts`; text is decoded without special tokens and cut at a stop string."""

    @abstractmethod
    def score_ids(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log-probability in nats, and whether greedy decoding would write it."""

    # --- what lm_eval calls

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Generation]:  # type: ignore[override]  # noqa: ARG002
        """Greedy answers. Raises UserError for a task that asks for sampling."""
        answers: list[Generation | None] = [None] * len(requests)
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for index, request in enumerate(requests):
            args: Any = request.args
            groups.setdefault(self._settings(args[1]), []).append(index)
        prompts = [ids for ids, _ in encode_batch(self.tokenizer, [request.args[0] for request in requests], None)]
        for (stops, max_new_tokens), members in groups.items():
            fitted = [self._fit(prompts[index] or [self.prefix_token_id], room=max_new_tokens) for index in members]
            special, plain = self._split_stops(stops)
            stop_ids = sorted({*self.eos_ids, *special})
            found = self.generate_ids(fitted, stops=plain, stop_ids=stop_ids, max_new_tokens=max_new_tokens)
            for index, answer in zip(members, found, strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability of continuations after contexts, and whether greedy decoding would write them."""
        # All texts are tokenised here, in two calls: options share their context, and items their options.
        contexts, continuations = (list(dict.fromkeys(request.args[i] for request in requests)) for i in (0, 1))
        self._heads = dict(zip(contexts, (ids for ids, _ in encode_batch(self.tokenizer, contexts, None)), strict=True))
        tails = self.tokenizer(continuations, add_special_tokens=False)["input_ids"] if continuations else []
        self._tails = dict(zip(continuations, map(list, tails), strict=True))
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._heads, self._tails = {}, {}

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-probability of whole texts, in disjoint windows where they do not fit."""
        totals = []
        for (text,) in [request.args for request in requests]:
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            totals.append(sum(score for score, _ in self.score_ids([utils.make_disjoint_window(w) for w in windows])))
        return totals

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        **kwargs: Any,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        pairs = []
        for (context, continuation), context_ids, continuation_ids in requests:
            if not continuation_ids:
                raise ValueError(f"continuation {continuation!r} of {context[-40:]!r} has no tokens")
            pairs.append((self._fit(context_ids, room=len(continuation_ids)), continuation_ids))
        return self.score_ids(pairs)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Context as a prompt is encoded, continuation apart; lm-eval would move blanks from one to the other."""
        head, tail = self._heads.get(context), self._tails.get(continuation)
        return (
            self.tok_encode(context) if head is None else head,
            self.tok_encode(continuation, add_special_tokens=False) if tail is None else tail,
        )

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
