"""The options of `analyze`: one subparser per analysis."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

CHECKPOINT = (
    "a checkpoint folder, a catalog id, ORG/NAME, or the key of a run's checkpoint whose weights were kept "
    "(run --keep-checkpoints)"
)


def add_analyze(commands: Any, parser_class: type[argparse.ArgumentParser]) -> None:
    """Add `analyze` with its kinds to the commands of the command line."""
    analyze = commands.add_parser("analyze", help="what fine-tuning does to a model's key-value memory")
    kinds = analyze.add_subparsers(dest="what", required=True, metavar="ANALYSIS", parser_class=parser_class)
    _add_shift(kinds)
    _add_flux(kinds)
    _add_surrogate(kinds)


def _add_shift(kinds: Any) -> None:
    shift = kinds.add_parser(
        "shift", help="how many key coefficients lie in the base model's percentile regions, before and after"
    )
    shift.add_argument("--base", required=True, metavar="CKPT", help=CHECKPOINT)
    shift.add_argument(
        "--checkpoints",
        required=True,
        nargs="+",
        metavar="CKPT",
        help="the same; LABEL=CKPT names the method, else its record does; those of one name are its seeds",
    )
    shift.add_argument(
        "--tokens", type=_whole, default=4096, metavar="N", help="of held-out text, at most; default 4096"
    )
    shift.add_argument(
        "--sources", default="all", metavar="LIST", help="whose held-out rows, by comma; default: all that are there"
    )
    shift.add_argument(
        "--layers", default="all", metavar="LIST", help="all, early, middle, late, sums with +, or indices; default all"
    )
    shift.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="local data instead of upstream; default for embedded models: miniworld",
    )
    _add_places(shift, Path("analysis/shift"))
    shift.set_defaults(handler="infosteer_bench.commands.analyze:shift_command")


def _add_flux(kinds: Any) -> None:
    flux = kinds.add_parser(
        "flux", help="how evenly each token of a text engages the memories: a page, numbers, word classes, surprisal"
    )
    flux.add_argument("--checkpoint", required=True, metavar="CKPT", help=f"writes and reads; {CHECKPOINT}")
    flux.add_argument(
        "--compare", nargs="+", default=[], metavar="CKPT", help="further ones of its vocabulary read the same tokens"
    )
    flux.add_argument(
        "--prompts",
        default="builtin",
        metavar="FILE",
        help='builtin (default), a text file with one prompt a line, or .jsonl of {"prompt": ..., "name": ...}',
    )
    flux.add_argument(
        "--template",
        choices=["plain", "alpaca", "chat"],
        default="plain",
        help="what a prompt is put in; default plain",
    )
    flux.add_argument(
        "--max-new-tokens", type=_whole, default=256, metavar="N", help="written after each prompt; default 256"
    )
    _add_places(flux, Path("analysis/flux"))
    flux.set_defaults(handler="infosteer_bench.commands.analyze_flux:flux_command")


def _add_surrogate(kinds: Any) -> None:
    surrogate = kinds.add_parser(
        "surrogate", help="what each memory vector speaks of: its token distribution, specificity, top tokens"
    )
    surrogate.add_argument("--checkpoint", required=True, metavar="CKPT", help=CHECKPOINT)
    surrogate.add_argument(
        "--layers", default="all", metavar="LIST", help="all, early, middle, late, sums with +, or indices; default all"
    )
    surrogate.add_argument("--top-k", type=_whole, default=10, metavar="K", help="tokens of each memory; default 10")
    surrogate.add_argument("--concept", metavar="TEXT", help="rank memories by the probability they give its tokens")
    surrogate.add_argument(
        "--show", type=_whole, default=20, metavar="N", help="rows of the tables that are printed; default 20"
    )
    _add_places(surrogate, Path("analysis/surrogate"))
    surrogate.set_defaults(handler="infosteer_bench.commands.analyze_surrogate:surrogate_command")


def _add_places(parser: argparse.ArgumentParser, output: Path) -> None:
    """Where checkpoints are looked for, and where the results go."""
    parser.add_argument("--model-root", type=Path, metavar="DIR", help="local models, laid out as ORG/NAME")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where keys are looked up; default runs"
    )
    parser.add_argument("--output", type=Path, default=output, metavar="DIR", help=f"default {output}")
    parser.add_argument("--quiet", action="store_true", help="print problems and the result only")


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
