"""The command line. Arguments are read and checked here; every command imports what it needs when it runs.

Exit codes: 0 done; 1 some cells failed (each is named with its log); 2 the user can fix it (one line, nothing
written); 130 interrupted (state is kept; the same command goes on).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from infosteer_bench.commands.analyze_options import add_analyze
from infosteer_bench.errors import UserError, is_disk_full
from infosteer_bench.processes import quiet_libraries
from infosteer_bench.version import __version__


class _Parser(argparse.ArgumentParser):
    """argparse that answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        print(f"infosteer-bench: {' '.join(message.split())}; next: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; docs are generated from it."""
    parser = _Parser(prog="infosteer-bench", description="Fine-tune with and without InfoSteer, evaluate, compare.")
    parser.add_argument("--version", action="version", version=f"infosteer-bench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="train and evaluate a grid, then build its leaderboard; rerun to resume")
    _add_grid_options(run)
    run.add_argument("--dry-run", action="store_true", help="print what would be done, do nothing")
    run.add_argument(
        "--tflops", type=_amount, metavar="X", help="with --dry-run: the TFLOP/s that trainings will reach"
    )
    run.add_argument("--keep-checkpoints", action="store_true", help="keep them after all their cells are done")
    run.add_argument(
        "--max-checkpoints-on-disk",
        type=_positive,
        metavar="N",
        help="train at most N, answer their tasks, drop them, go on; default: all of one model",
    )
    run.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="processes side by side; default: one per GPU; on a CPU one per core (at most 8) for models under 10 M, "
        "else 1; 0: no other process",
    )
    run.add_argument(
        "--retries",
        type=_count,
        default=2,
        metavar="N",
        help="new workers for a checkpoint whose worker died or hung; default 2",
    )
    run.add_argument(
        "--max-silence",
        type=_amount,
        default=60.0,
        metavar="MIN",
        help="minutes after which a worker that reports nothing is taken for hung; default 60",
    )
    run.set_defaults(handler="infosteer_bench.commands.run:run_command")

    train = commands.add_parser("train", help="train a grid's checkpoints only; works under `accelerate launch`")
    _add_grid_options(train)
    train.set_defaults(handler="infosteer_bench.commands.run:train_command")

    evaluate = commands.add_parser("eval", help="evaluate any checkpoint folder, nothing trained")
    evaluate.add_argument("--checkpoint", required=True, type=Path, metavar="PATH", help="a Hugging Face checkpoint")
    evaluate.add_argument("--tasks", default="all", metavar="LIST", help="as for run")
    evaluate.add_argument("--include-path", type=Path, metavar="DIR", help="folder with further lm-eval task YAMLs")
    evaluate.add_argument(
        "--parity", action="store_true", help="compare hf with vllm, and each with itself, on the same items"
    )
    _add_run_options(evaluate)
    evaluate.set_defaults(handler="infosteer_bench.commands.run:eval_command")

    rescore = commands.add_parser(
        "rescore", help="score a run's stored answers again by the filters of today; no model"
    )
    rescore.add_argument("--runs", required=True, type=Path, metavar="DIR", help="a run's folder (runs/<grid>)")
    rescore.add_argument("--data-root", type=Path, metavar="DIR", help="the data that the run used")
    rescore.add_argument("--model-root", type=Path, metavar="DIR", help="where prompts need a model's chat template")
    rescore.add_argument("--include-path", type=Path, metavar="DIR", help="folder with further lm-eval task YAMLs")
    rescore.add_argument("--quiet", action="store_true", help="print what changed and the result only")
    rescore.set_defaults(handler="infosteer_bench.commands.rescore:rescore_command")

    board = commands.add_parser("leaderboard", help="rebuild leaderboards from records alone")
    board.add_argument("--runs", type=Path, metavar="DIR", help="a run's folder (runs/<grid>)")
    board.add_argument("--output", type=Path, metavar="DIR", help="where the board goes; default DIR/leaderboard")
    board.add_argument("--check", action="store_true", help="fail if any committed file differs from its records")
    board.set_defaults(handler="infosteer_bench.commands.leaderboard:leaderboard_command")

    smoke = commands.add_parser("smoke", help="does every method and every task work here? minutes, nothing downloaded")
    smoke.add_argument(
        "--backend", choices=["all", "hf", "vllm"], default="all", help="all: hf, and vllm where it is installed"
    )
    smoke.add_argument("--output", type=Path, metavar="DIR", help="keep the runs here; default: a temporary folder")
    smoke.add_argument("--quiet", action="store_true", help="print what fails and the result only")
    smoke.set_defaults(handler="infosteer_bench.commands.smoke:smoke_command")

    data = commands.add_parser("data", help="fetch, verify or list data files; the development split; overlaps")
    data.add_argument(
        "action",
        choices=["fetch", "list", "dev", "audit"],
        help="fetch: download and verify; list: what is there; dev: a data root whose tests are the held-out rows; "
        "audit: test questions that stand in a mix, or twice in the tests",
    )
    data.add_argument("--data-root", type=Path, metavar="DIR", help="local copy laid out as upstream, or miniworld")
    data.add_argument("--output", type=Path, metavar="DIR", help="with dev: the new data root")
    data.add_argument("--json", type=Path, metavar="FILE", help="with audit: write it there too")
    data.add_argument("--board", type=Path, metavar="DIR", help="with audit: keep it beside this board or run")
    data.set_defaults(handler="infosteer_bench.commands.data:data_command")

    world = commands.add_parser("miniworld", help="the embedded world: pretrain its models, audit it, write its data")
    world.add_argument(
        "action",
        choices=["build", "audit", "data"],
        help="build: pretrain the models, resumes; audit: leaks and baselines; data: write the data files",
    )
    world.add_argument("--family", default="all", metavar="NAME", help="with build: qwen2, llama, gemma2; default all")
    world.add_argument("--output", type=Path, metavar="DIR", help="with build and data; default: miniworld")
    world.add_argument("--no-twin", dest="twin", action="store_false", help="with build: no twin without asked facts")
    world.add_argument("--json", type=Path, metavar="FILE", help="with audit: write it there too")
    world.set_defaults(handler="infosteer_bench.commands.miniworld:miniworld_command")

    _add_profile(commands)
    add_analyze(commands, _Parser)

    doctor = commands.add_parser("doctor", help="is this machine ready, and for a grid? each line with its fix")
    doctor.add_argument("--start-vllm", action="store_true", help="start an engine on an embedded model (a minute)")
    _add_grid_options(doctor)
    doctor.set_defaults(handler="infosteer_bench.commands.doctor:doctor_command")

    show = commands.add_parser("show", help="everything recorded of a checkpoint or cell, and its files")
    show.add_argument("key", metavar="KEY", help="a key, or its beginning")
    show.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    show.set_defaults(handler="infosteer_bench.commands.show:show_command")

    listing = commands.add_parser("list", help="list models, methods, tasks, mixes or grids")
    listing.add_argument("what", choices=["models", "methods", "tasks", "mixes", "grids"])
    listing.add_argument("--include-path", type=Path, metavar="DIR", help="with tasks: further lm-eval task YAMLs")
    listing.set_defaults(handler="infosteer_bench.commands.listing:list_command")
    return parser


def _add_profile(commands: Any) -> None:
    profile = commands.add_parser("profile", help="what training and evaluating cost here, as ratios")
    kinds = profile.add_subparsers(dest="what", required=True, metavar="train|eval|runs", parser_class=_Parser)

    train = kinds.add_parser("train", help="a training step under each method, against plain fine-tuning")
    train.add_argument("--shape", default="qwen2.5-1.5b", metavar="ID", help="a catalog model's; weights are random")
    train.add_argument("--layers", type=_positive, metavar="N", help="decoder layers; default: the shape's own")
    train.add_argument("--methods", default="all", metavar="LIST", help="all that train, or names, by comma")
    train.add_argument("--batch", type=_positive, default=4, metavar="B", help="rows; default 4, as in the paper")
    train.add_argument("--tokens", type=_positive, default=256, metavar="T", help="per row; default 256, as there")
    train.add_argument(
        "--precision", choices=["bf16", "float32"], help="default: bf16 (autocast) on CUDA, else float32"
    )
    train.add_argument("--no-checkpointing", action="store_true", help="without gradient checkpointing")
    train.add_argument("--rounds", type=_positive, default=7, metavar="N", help="each method once a round; default 7")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="methods.NAME.FIELD=VALUE")
    train.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    train.set_defaults(handler="infosteer_bench.commands.profile:train_command")

    evaluate = kinds.add_parser("eval", help="many checkpoints by one live engine, against an engine for each")
    evaluate.add_argument(
        "--model", default="mini-llama", metavar="ID|PATH", help="its shape; default: an embedded one"
    )
    evaluate.add_argument("--checkpoints", type=_positive, default=6, metavar="N", help="variants of it; default 6")
    evaluate.add_argument("--tasks", default="all", metavar="LIST", help="as for run")
    evaluate.add_argument("--limit", type=_positive, default=40, metavar="N", help="items of each task; default 40")
    evaluate.add_argument("--backend", choices=["auto", "hf", "vllm"], default="auto", help="as for run")
    evaluate.add_argument("--data-root", type=Path, metavar="DIR", help="default: the embedded world's data")
    evaluate.add_argument("--model-root", type=Path, metavar="DIR", help="local models, laid out as ORG/NAME")
    evaluate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="eval.FIELD=VALUE")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    evaluate.set_defaults(handler="infosteer_bench.commands.profile:eval_command")

    runs = kinds.add_parser("runs", help="planning a large grid, finding it finished, building its board")
    runs.add_argument("--cells", type=_positive, default=900, metavar="N", help="of the finished run; default 900")
    runs.add_argument("--items", type=_positive, default=1000, metavar="N", help="of each cell; default 1000")
    runs.add_argument("--plan", type=_positive, default=10_000, metavar="N", help="cells to plan; default 10000")
    runs.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    runs.set_defaults(handler="infosteer_bench.commands.profile:runs_command")


def _add_grid_options(parser: argparse.ArgumentParser) -> None:
    """What selects and changes a grid; the same for run and train."""
    parser.add_argument(
        "--grid", metavar="NAME|FILE", help="a shipped grid or a YAML file; default: paper on a CUDA GPU, else embedded"
    )
    parser.add_argument(
        "--models", default="all", metavar="LIST", help="all, a family, catalog ids, ORG/NAME or folders, by comma"
    )
    parser.add_argument("--methods", default="all", metavar="LIST", help="all (the grid's) or names, by comma")
    parser.add_argument("--tasks", default="all", metavar="LIST", help="all, id, ood, ood5, a type or names, by comma")
    parser.add_argument("--seeds", type=_seeds, metavar="LIST", help="whole numbers by comma; default: the grid's")
    _add_run_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N items of every task")
    parser.add_argument("--backend", choices=["auto", "hf", "vllm"], help="what answers; auto: vllm on a CUDA GPU")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="local data instead of upstream")
    parser.add_argument("--model-root", type=Path, metavar="DIR", help="local models, laid out as ORG/NAME")
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting of the grid"
    )
    parser.add_argument("--quiet", action="store_true", help="print problems and the result only")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) != len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of distinct whole numbers such as 0,1,2")
    return tuple(int(part) for part in parts)


def _interrupt(number: int, frame: Any) -> NoReturn:  # noqa: ARG001 - the signal module's signature
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    quiet_libraries()
    signal.signal(signal.SIGTERM, _interrupt)
    module, _, function = options.handler.partition(":")
    try:
        import importlib

        return int(getattr(importlib.import_module(module), function)(options))
    except UserError as error:
        print(f"infosteer-bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("infosteer-bench: interrupted; state is kept, the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_disk_full(error):
            raise
        where = f" ({options.output})" if getattr(options, "output", None) else ""
        fix = "make room, the same command goes on (run --max-checkpoints-on-disk N needs less of it)"
        print(f"infosteer-bench: the disk is full{where}; next: {fix}", file=sys.stderr)
        return 2
