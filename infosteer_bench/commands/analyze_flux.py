"""`analyze flux`: per-token entropy of the key distribution, as a page, as numbers, and by word class."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING

from infosteer_bench.commands.analyze import check_output
from infosteer_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from infosteer_bench.analysis.flux import Text
    from infosteer_bench.analysis.prompts import Prompt

WINDOW = 4096
"""Tokens of a text at most, where a model's own window is larger."""


def flux_command(options: argparse.Namespace) -> int:
    """Let the first model write, let every model read, write the report. Returns 0."""
    from infosteer_bench.analysis.checkpoints import find_checkpoint, load, same_vocabulary
    from infosteer_bench.analysis.flux import measure, tokens_of, width, with_levels
    from infosteer_bench.analysis.flux_files import ModelFlux, report_of, write_report
    from infosteer_bench.analysis.prompts import read_prompts
    from infosteer_bench.models.load import load_tokenizer

    check_output(options.output)
    prompts = read_prompts(options.prompts)
    found = [
        find_checkpoint(text, runs=options.runs, model_root=options.model_root)
        for text in (options.checkpoint, *options.compare)
    ]
    for other in found[1:]:
        same_vocabulary(found[0], other)
    labels = _labels([checkpoint.label for checkpoint in found])
    tokenizer = load_tokenizer(found[0].path)

    def say(text: str) -> None:
        if not options.quiet:
            print(f"flux: {text}", file=sys.stderr, flush=True)

    models, texts = [], []
    for label, checkpoint in zip(labels, found, strict=True):
        model = load(checkpoint)
        if not texts:
            for prompt in prompts:
                say(f"{label} writes {prompt.name}")
                texts.append(_write(model, tokenizer, prompt, options))
        say(f"{label} reads {sum(len(text.ids) for text in texts)} tokens")
        fluxes = [measure(model, text.ids) for text in texts]
        tokens = [
            token
            for text, flux in zip(texts, fluxes, strict=True)
            for token in tokens_of(label, text, flux, log_width=math.log(width(model)))
        ]
        identity = {
            "family": checkpoint.resolved.family.name,
            "revision": checkpoint.resolved.revision,
            "layers": checkpoint.resolved.n_layers,
            "F": width(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        }
        models.append(ModelFlux(label, identity, with_levels(tokens), fluxes))
        del model
    settings = {
        "prompts": options.prompts if options.prompts == "builtin" else "own",
        "template": options.template,
        "max_new_tokens": options.max_new_tokens,
    }
    report = report_of(models, texts, settings)
    write_report(report, options.output)
    for sheet in report.sheets:
        print("\n".join(_plain_table(sheet.title, sheet.header, sheet.body)))
    print(f"the page: {options.output / 'flux.html'}; numbers: flux.csv, flux.json; tables: summary.md")
    return 0


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, options: argparse.Namespace
) -> Text:
    """The prompt in its template, a line break after it as after the tasks' prompts, and what the model writes then."""
    from infosteer_bench.analysis.flux import end_ids, text_of, write_greedily
    from infosteer_bench.data.render import Renderer, encode
    from infosteer_bench.grid import PromptConfig

    renderer = Renderer(PromptConfig(template=options.template), tokenizer)
    ids, _ = encode(tokenizer, renderer.wrap(prompt.text + "\n"), None)
    window = min(int(getattr(model.config, "max_position_embeddings", WINDOW)), WINDOW)
    if len(ids) + options.max_new_tokens > window:
        raise UserError(
            f"{prompt.name} has {len(ids)} tokens, and {options.max_new_tokens} are to be written",
            allowed=f"{window} tokens together",
            hint="shorten the prompt, or lower --max-new-tokens",
        )
    written = write_greedily(model, ids, max_new_tokens=options.max_new_tokens, end_ids=end_ids(model, tokenizer))
    return text_of(tokenizer, prompt.name, ids, written)


def _labels(given: list[str]) -> list[str]:
    """Labels of their own for checkpoints of one name: seeds of one method, say."""
    return [
        label if given.count(label) == 1 else f"{label} #{given[: i + 1].count(label)}" for i, label in enumerate(given)
    ]


def _plain_table(title: str, header: tuple[str, ...], body: tuple[tuple[str, ...], ...]) -> list[str]:
    rows = [header, *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(size) if i == 0 else cell.rjust(size)
            for i, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [title, *(line.rstrip() for line in lines), ""]
