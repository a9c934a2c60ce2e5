"""`analyze surrogate`: what each memory vector speaks of, as tables, numbers and histograms."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infosteer_bench.commands.analyze import check_output

if TYPE_CHECKING:
    from infosteer_bench.analysis.surrogate import LayerSurrogates, Memory, TokenTexts

SHOWN_TOKENS = 6
"""Top tokens in a printed table; the files have all."""


def surrogate_command(options: argparse.Namespace) -> int:
    """Write memories.csv, surrogate.json and specificity.svg; print the most specialised memories. Returns 0."""
    from infosteer_bench.analysis.checkpoints import chosen_layers, find_checkpoint, load
    from infosteer_bench.analysis.surrogate import (
        TokenTexts,
        closest,
        concept_ids,
        layer_summary,
        specialised,
        surrogates_of,
        to_csv,
        to_json,
    )
    from infosteer_bench.analysis.surrogate_figure import draw
    from infosteer_bench.models.load import load_tokenizer
    from infosteer_bench.records import write_atomic

    check_output(options.output)
    checkpoint = find_checkpoint(options.checkpoint, runs=options.runs, model_root=options.model_root)
    chosen = chosen_layers(options.layers, checkpoint.resolved.n_layers)
    tokenizer = load_tokenizer(checkpoint.path)
    concept = [] if options.concept is None else concept_ids(tokenizer, options.concept)
    texts = TokenTexts(tokenizer)
    model = load(checkpoint)
    layers = []
    for layer in chosen:
        if not options.quiet:
            print(f"surrogate: layer {layer}", file=sys.stderr, flush=True)
        layers.append(surrogates_of(model, layer, top_k=options.top_k, concept=concept))
    best = specialised(layers, options.show)
    near = closest(layers, options.show) if concept else []
    found = {
        "checkpoint": checkpoint.label,
        "revision": checkpoint.resolved.revision,
        "top_k": options.top_k,
        "concept": options.concept,
        "concept_tokens": [texts(token) for token in concept],
        "layers": [layer_summary(layer) for layer in layers],
        "most_specialised": [to_json(row, texts) for row in best],
        "closest_to_concept": [to_json(row, texts) for row in near],
    }
    write_atomic(options.output / "memories.csv", to_csv(layers, texts))
    write_atomic(options.output / "surrogate.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    figure = draw(layers, options.output)
    print("\n".join(_summary(checkpoint.label, layers, best, texts)))
    if near:
        tokens = " ".join(repr(texts(token)) for token in concept)
        print(f"\nclosest to {options.concept!r} (tokens {tokens}; nats above an even distribution, mean of them)")
        print("\n".join(_rows(near, texts)))
    print(f"\nwritten: {options.output / 'memories.csv'}, surrogate.json, {figure.name}")
    return 0


def _summary(label: str, layers: Sequence[LayerSurrogates], best: Sequence[Memory], texts: TokenTexts) -> list[str]:
    from infosteer_bench.analysis.surrogate import layer_summary

    lines = [
        f"{label}: specificity 1 - H / log V of memory vectors, log V = {layers[0].found.log_vocabulary:.3f} nats",
        f"{'layer':>5} {'memories':>9} {'mean':>9} {'median':>9} {'99 %':>9} {'highest':>9}",
    ]
    for layer in layers:
        row = layer_summary(layer)
        shown = " ".join(f"{row[name]:9.5f}" for name in ("mean", "median", "99th percentile", "highest"))
        lines.append(f"{layer.layer:>5} {row['memories']:>9} {shown}")
    return [*lines, "", "most specialised memories", *_rows(best, texts)]


def _rows(memories: Sequence[Memory], texts: TokenTexts) -> list[str]:
    lines = []
    for row in memories:
        tokens = " ".join(repr(texts(token)) for token in row.top_ids[:SHOWN_TOKENS])
        above = "" if row.above_even is None else f" {row.above_even:+8.3f}"
        lines.append(
            f"  layer {row.layer:>3} memory {row.memory:>6} specificity {row.specificity:.5f}{above}  {tokens}"
        )
    return lines
