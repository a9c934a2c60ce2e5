"""Information flux (paper 6.2): how evenly each token of a text engages the memories, beside how surprising it is.

    flux = measure(model, ids)            # one forward over the whole text
    flux.entropy, flux.surprisal

Which position a token's entropy belongs to: the one that **reads** it, where the token is the input and its key
coefficients are computed from it. Surprisal is -log p of the token under the prediction of the position before, so
entropy and surprisal of a row speak of the same token. `next_surprisal` is that of the token after, which this very
position predicts. The first token has no surprisal, the last no next one: NaN, None in files.

A model writes its answer greedily first; then prompt and answer are read in one forward, so that prompt and written
tokens are measured alike, and several models on the very same tokens.

Shapes: T tokens, L layers, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from infosteer_bench.analysis.words import SPECIAL, Word, classify, decode_pieces
from infosteer_bench.memory.entropy import key_entropy
from infosteer_bench.memory.tap import Tap
from infosteer_bench.models.families import cache_option, decoder, ffn_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEVELS = ("low", "medium", "high")
_ROWS = 256
"""Positions whose (T, V) logits are turned into float32 log-probabilities at a time."""


@dataclass(frozen=True)
class Flux:
    """entropy: (T, L) nats, of the position that reads the token. surprisal: (T,) nats, NaN for the first token."""

    entropy: Tensor
    surprisal: Tensor


@dataclass(frozen=True)
class Token:
    """One token of one prompt as one model reads it; the fields are the columns of flux.csv.

    part: prompt or written. entropy_nats: mean over layers; entropy_share: over log F, from 0 to 1. level: the third of
    this model's tokens (control tokens left out) that its entropy falls in; None for a control token.
    """

    model: str
    prompt: str
    position: int
    part: str
    token_id: int
    text: str
    word: str
    word_class: str
    entropy_nats: float
    entropy_share: float
    surprisal_nats: float | None
    next_surprisal_nats: float | None
    level: str | None = None
    surprisal_level: str | None = None


@torch.inference_mode()
def measure(model: PreTrainedModel, ids: Sequence[int]) -> Flux:
    """Entropy and surprisal of every token of a text, in one forward of the plain model."""
    layers = dict(enumerate(ffn_layers(model)))
    given = torch.tensor([list(ids)], device=model.device)
    with Tap(root=decoder(model), layers=layers, read=lambda k, _: key_entropy(k)) as tap:
        logits = model(input_ids=given, use_cache=False).logits[0]  # (T, V)
        entropy = torch.stack([reading[0] for reading in tap.take().values()], dim=-1)
    surprisal = torch.full((len(ids),), math.nan)
    for start in range(0, len(ids) - 1, _ROWS):
        targets = given[0, start + 1 : start + 1 + _ROWS]
        rows = logits[start : start + len(targets)].float()
        surprisal[start + 1 : start + 1 + len(targets)] = functional.cross_entropy(
            rows, targets, reduction="none"
        ).cpu()
    return Flux(entropy.cpu(), surprisal)


@torch.inference_mode()
def write_greedily(
    model: PreTrainedModel, ids: Sequence[int], *, max_new_tokens: int, end_ids: Iterable[int]
) -> list[int]:
    """The most probable next tokens, one by one, up to and with one of end_ids; nothing else steers them.

    (`generate` would apply whatever the checkpoint's generation_config.json asks for, such as a repetition penalty.)
    """
    from transformers import DynamicCache

    cache = cache_option(model, DynamicCache(config=model.config))
    ends, written = set(end_ids), []
    given = torch.tensor([list(ids)], device=model.device)
    while len(written) < max_new_tokens:
        logits = model(input_ids=given, **cache, use_cache=True, logits_to_keep=1).logits
        given = logits[:, -1].float().argmax(-1, keepdim=True)  # (1, 1)
        written.append(int(given))
        if written[-1] in ends:
            break
    return written


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends an answer, by the tokenizer and by the model's generation config."""
    config: Any = model.generation_config
    stated = getattr(config, "eos_token_id", None)
    own: Any = tokenizer.eos_token_id
    found = stated if isinstance(stated, list | tuple) else [stated]
    return {int(token) for token in (*found, own) if token is not None}


def width(model: PreTrainedModel) -> int:
    """F, the number of key coefficients of a layer."""
    weight: Any = ffn_layers(model)[0].weight
    return int(weight.shape[1])


@dataclass(frozen=True)
class Text:
    """A prompt with what was written after it: ids, what each adds to the text, and its word."""

    name: str
    ids: tuple[int, ...]
    n_prompt: int
    pieces: tuple[str, ...]
    words: tuple[Word, ...]


def text_of(tokenizer: PreTrainedTokenizerBase, name: str, prompt_ids: Sequence[int], written: Sequence[int]) -> Text:
    """Prompt and answer as one text, cut into words."""
    ids = [*prompt_ids, *written]
    pieces = decode_pieces(tokenizer, ids)
    control = set(tokenizer.all_special_ids)
    words = classify(pieces, special=[token in control for token in ids], n_prompt=len(prompt_ids))
    return Text(name, tuple(ids), len(prompt_ids), tuple(pieces), tuple(words))


def tokens_of(model_name: str, text: Text, flux: Flux, *, log_width: float) -> list[Token]:
    """The rows of one text as one model reads it, levels not yet set (`with_levels`). log_width: log F."""
    surprisal = [None if math.isnan(value) else value for value in flux.surprisal.tolist()]
    following = [*surprisal[1:], None]
    means = flux.entropy.double().mean(-1).tolist()
    return [
        Token(
            model=model_name,
            prompt=text.name,
            position=position,
            part="prompt" if position < text.n_prompt else "written",
            token_id=token_id,
            text=text.pieces[position],
            word=text.words[position].text,
            word_class=text.words[position].word_class,
            entropy_nats=means[position],
            entropy_share=means[position] / log_width,
            surprisal_nats=surprisal[position],
            next_surprisal_nats=following[position],
        )
        for position, token_id in enumerate(text.ids)
    ]


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The values below which a third and two thirds lie (linear between neighbours). values: one at least."""
    ordered = torch.tensor(values, dtype=torch.float64)
    low, high = torch.quantile(ordered, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)).tolist()
    return low, high


def limits(tokens: Sequence[Token]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Where the thirds of one model's tokens part: by entropy, by surprisal (nats). Control tokens are left out."""
    inside = [token for token in tokens if token.word_class != SPECIAL]
    entropies = [token.entropy_nats for token in inside]
    surprisals = [token.surprisal_nats for token in inside if token.surprisal_nats is not None]
    return thirds(entropies) if entropies else None, thirds(surprisals) if surprisals else None


def with_levels(tokens: Sequence[Token]) -> list[Token]:
    """One model's tokens with their levels, by entropy and by surprisal."""
    by_entropy, by_surprisal = limits(tokens)
    return [
        token
        if token.word_class == SPECIAL
        else replace(
            token,
            level=_level(token.entropy_nats, by_entropy),
            surprisal_level=_level(token.surprisal_nats, by_surprisal),
        )
        for token in tokens
    ]


def _level(value: float | None, cuts: tuple[float, float] | None) -> str | None:
    if value is None or cuts is None:
        return None
    return LEVELS[(value >= cuts[0]) + (value >= cuts[1])]
