"""Information surrogates of a checkpoint's memories (paper 4.3, App. B): specificity, top tokens, rank by a concept.

    layers = [surrogates_of(model, layer, top_k=10, concept=ids) for layer in chosen]
    specialised(layers, 20), closest(layers, 20)

A concept's tokens are those of the text after a blank, as inside a sentence. Memories are ranked by the mean of log P_i
over these tokens. "nats above even" is that mean plus log V: 0 where P_i prefers nothing.

Shapes: F memories of a layer, V vocabulary, K top tokens.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from infosteer_bench.errors import UserError
from infosteer_bench.memory.surrogate import Surrogates, surrogates
from infosteer_bench.models.families import ffn_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUANTILES = (0.0, 0.5, 0.99, 1.0)


@dataclass(frozen=True)
class LayerSurrogates:
    """One layer's memories."""

    layer: int
    found: Surrogates


@dataclass(frozen=True)
class Memory:
    """One memory for a table. above_even: nats by which the concept's tokens lie above 1 / V; None without one."""

    layer: int
    memory: int
    specificity: float
    entropy_nats: float
    top_ids: tuple[int, ...]
    top_probabilities: tuple[float, ...]
    above_even: float | None


def surrogates_of(model: PreTrainedModel, layer: int, *, top_k: int, concept: Sequence[int] = ()) -> LayerSurrogates:
    """All memories of a layer. Raises UserError if the vocabulary has fewer than top_k tokens."""
    decode = decoding_weight(model)
    if top_k > decode.shape[0]:
        raise UserError(f"--top-k {top_k}", allowed=f"at most the vocabulary's {decode.shape[0]} tokens")
    module: Any = ffn_layers(model)[layer]
    return LayerSurrogates(layer, surrogates(module.weight, decode, top_k=top_k, concept=concept))


def decoding_weight(model: PreTrainedModel) -> torch.Tensor:
    """W_decode (V, D): the language head's weight, which may be the embedding's too."""
    head: Any = model.get_output_embeddings()
    return head.weight


def concept_ids(tokenizer: PreTrainedTokenizerBase, concept: str) -> list[int]:
    """Ids of a concept's tokens, as after a blank. Raises UserError for an empty and for an unknown concept."""
    if not concept.strip():
        raise UserError("--concept is empty", allowed='a word or a few, such as "quantum physics"')
    encoded: Any = tokenizer(f" {concept.strip()}", add_special_tokens=False)
    ids = list(encoded["input_ids"])
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise UserError(
            f"--concept {concept!r} holds what the vocabulary does not know",
            allowed="text whose tokens are all in the vocabulary: no memory speaks of an unknown token",
        )
    return ids


def specialised(layers: Sequence[LayerSurrogates], n: int) -> list[Memory]:
    """The n memories of highest specificity, of all layers together."""
    return _best(layers, torch.cat([one.found.specificity for one in layers]), n)


def closest(layers: Sequence[LayerSurrogates], n: int) -> list[Memory]:
    """The n memories that give the concept's tokens most. Raises ValueError if `layers` were made without a concept."""
    scores = [one.found.concept for one in layers if one.found.concept is not None]
    if len(scores) != len(layers):
        raise ValueError("these surrogates know no concept")
    return _best(layers, torch.cat(scores), n)


def _best(layers: Sequence[LayerSurrogates], scores: torch.Tensor, n: int) -> list[Memory]:
    sizes = [len(one.found.entropy) for one in layers]
    # stable: equal scores in order of layer and memory
    order = scores.argsort(descending=True, stable=True)[:n].tolist()
    best = []
    for index in order:
        place = 0
        while index >= sizes[place]:
            index -= sizes[place]
            place += 1
        best.append(memory_of(layers[place], index))
    return best


def memory_of(layer: LayerSurrogates, memory: int) -> Memory:
    """One memory of a layer."""
    found = layer.found
    return Memory(
        layer.layer,
        memory,
        float(found.specificity[memory]),
        float(found.entropy[memory]),
        tuple(found.top_ids[memory].tolist()),
        tuple(found.top_probabilities[memory].tolist()),
        None if found.concept is None else float(found.concept[memory]) + found.log_vocabulary,
    )


def layer_summary(layer: LayerSurrogates) -> dict[str, Any]:
    """Mean and quantiles of a layer's specificity."""
    specificity = layer.found.specificity.double()
    cuts = torch.quantile(specificity, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    names = ("lowest", "median", "99th percentile", "highest")
    return {
        "layer": layer.layer,
        "memories": len(specificity),
        "mean": float(specificity.mean()),
        **dict(zip(names, cuts, strict=True)),
    }


class TokenTexts:
    """Token id -> text for tables: decoded where that gives whole characters, else as the vocabulary has it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._known = tokenizer, dict[int, str]()

    def __call__(self, token_id: int) -> str:
        if token_id not in self._known:
            text = str(self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
            raw = None if text and "\ufffd" not in text else self._tokenizer.convert_ids_to_tokens(token_id)
            # a head may be padded beyond the vocabulary: such a row has no text
            self._known[token_id] = str(raw) if raw else text or f"[{token_id}]"
        return self._known[token_id]


def to_csv(layers: Sequence[LayerSurrogates], texts: TokenTexts) -> str:
    """A row per memory; its top tokens and their probabilities are JSON lists."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    with_concept = bool(layers) and layers[0].found.concept is not None
    names = ["layer", "memory", "specificity", "entropy_nats", "top_tokens", "top_probabilities"]
    writer.writerow([*names, *(["concept_nats_above_even"] if with_concept else [])])
    for layer in layers:
        for index in range(len(layer.found.entropy)):
            row = memory_of(layer, index)
            tokens = json.dumps([texts(token) for token in row.top_ids], ensure_ascii=False)
            shares = json.dumps([float(f"{share:.4g}") for share in row.top_probabilities])
            above = [] if row.above_even is None else [f"{row.above_even:.5f}"]
            writer.writerow(
                [row.layer, row.memory, f"{row.specificity:.6f}", f"{row.entropy_nats:.6f}", tokens, shares, *above]
            )
    return out.getvalue()


def to_json(row: Memory, texts: TokenTexts) -> dict[str, Any]:
    """A memory for surrogate.json."""
    return {
        "layer": row.layer,
        "memory": row.memory,
        "specificity": round(row.specificity, 6),
        "entropy_nats": round(row.entropy_nats, 6),
        "top_tokens": [texts(token) for token in row.top_ids],
        "top_probabilities": [float(f"{share:.4g}") for share in row.top_probabilities],
        "concept_nats_above_even": None if row.above_even is None else round(row.above_even, 5),
    }
