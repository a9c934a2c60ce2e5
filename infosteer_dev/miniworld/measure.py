"""What a model is trained on and measured by: losses, and shares of right answers per kind of document.

measure(model, world, "llama")      # {"facts": {"loss_nats": ..., "right": ...}, ..., "cloze": {...}}
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infosteer_bench.data.miniworld.words import RELATIONS
from infosteer_bench.data.miniworld.world import World
from infosteer_bench.data.render import IGNORE
from infosteer_dev.miniworld.architecture import BOS_ID, EOS_ID, LOWER, puts_bos
from infosteer_dev.miniworld.corpus import Corpus
from infosteer_dev.miniworld.tokenizer import make_vocabulary


def make_corpus(world: World, family: str, *, width: int, withheld: str | None) -> Corpus:
    """The family's stream of pretraining rows."""
    bos = BOS_ID if puts_bos(family) else None
    return Corpus(world, make_vocabulary(world), width=width, withheld=withheld, bos=bos, eos=EOS_ID)


def measure(model: Any, world: World, family: str, *, rows: int = 64, width: int = 96) -> dict[str, dict[str, float]]:
    """Loss in nats and percent right per kind of document (rows no training step has seen), and cloze accuracy in
    percent per group of creatures: the value that a statement ends with, among the whole vocabulary."""
    import torch

    corpus = make_corpus(world, family, width=width, withheld=None)
    out: dict[str, dict[str, float]] = {}
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for kind in corpus.makers:
            ids, labels, _ = corpus.batch(rows, {kind: 1.0}, stream="measure")
            loss, guesses, truth = answers(model, torch.from_numpy(ids), torch.from_numpy(labels))
            out[kind] = {"loss_nats": round(loss.item(), 4), "right": _percent(guesses == truth)}
        for group in world.groups:
            ids, labels = cloze(corpus, world, group)
            _, guesses, truth = answers(model, torch.from_numpy(ids), torch.from_numpy(labels))
            out.setdefault("cloze", {})[group] = _percent(guesses == truth)
    model.train(was_training)
    return out


def right_percent(model: Any, corpus: Corpus, kind: str, *, rows: int = 32) -> float:
    """Percent right on documents of one kind that no training step has seen."""
    import torch

    ids, labels, _ = corpus.batch(rows, {kind: 1.0}, stream="measure")
    model.eval()
    with torch.inference_mode():
        _, guesses, truth = answers(model, torch.from_numpy(ids), torch.from_numpy(labels))
    model.train()
    return _percent(guesses == truth)


def cloze(corpus: Corpus, world: World, group: str) -> tuple[np.ndarray, np.ndarray]:
    """One row per creature of the group and relation: the first wording of the fact, its value counted."""
    encoded = []
    for creature in world.groups[group]:
        for relation in RELATIONS:
            head = relation.statements[0].split("{v}")[0].format(e=creature.name).rstrip(" ")
            encoded.append(corpus.encode([(f" {head}", False), (f" {creature.values[relation.name]}", True)]))
    width = max(len(tokens) for tokens, _, _ in encoded)
    ids = np.full((len(encoded), width), EOS_ID, dtype=np.int64)
    labels = np.full((len(encoded), width), IGNORE, dtype=np.int64)
    for row, (tokens, counted, _) in enumerate(encoded):
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = np.where(counted, tokens, IGNORE)
    return ids, labels


def answers(model: Any, ids: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Mean loss in nats over the counted tokens, their predicted ids and their true ids; logits of those only.

    ids, labels: (B, T) tensors.
    """
    ids, targets, counted = _targets(model, ids, labels)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits = _logits(model, hidden[counted])
    return _cross_entropy(logits, targets[counted]).mean(), logits.argmax(-1), targets[counted]


def losses_of(model: Any, ids: Any, labels: Any, *, known: Any | None = None) -> tuple[Any, Any]:
    """The loss of `answers`, and the early one: what the LOWER layers' output says of the values in `known`.

    Both are sums in nats divided by the number of counted tokens. ids, labels, known: (B, T) tensors; IGNORE in `known`
    where nothing is to be known.
    """
    import torch

    ids, targets, counted = _targets(model, ids, labels)
    out = model.model(input_ids=ids, use_cache=False, output_hidden_states=known is not None)
    loss = _cross_entropy(_logits(model, out.last_hidden_state[:, :-1][counted]), targets[counted]).mean()
    if known is None:
        return loss, torch.zeros_like(loss)
    values = known.to(targets.device)[:, 1:]
    taught = values != IGNORE
    early = model.model.norm(out.hidden_states[LOWER][:, :-1][taught])
    return loss, _cross_entropy(_logits(model, early), values[taught]).sum() / counted.sum()


def _targets(model: Any, ids: Any, labels: Any) -> tuple[Any, Any, Any]:
    """ids (B, T), next tokens (B, T - 1) and which of them count, on the model's device."""
    device = next(model.parameters()).device
    targets = labels.to(device)[:, 1:]
    return ids.to(device), targets, targets != IGNORE


def _logits(model: Any, hidden: Any) -> Any:
    logits = model.lm_head(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma2
    return cap * (logits / cap).tanh() if cap else logits


def _cross_entropy(logits: Any, targets: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _percent(right: Any) -> float:
    return round(100.0 * right.float().mean().item(), 2)
