"""audit.json of a run: what of its tests stands in its mixes, and in one another (data/audit.py).

Made once, in seconds, and kept while the data stay what they were: a rerun compares digests that it has anyway.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from infosteer_bench.data.audit import audit_data
from infosteer_bench.data.mixes import Mix
from infosteer_bench.data.roots import open_source
from infosteer_bench.records import AUDIT_VERSION, CorruptRecord, DataAudit, read_sealed, write_sealed
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.plan import Plan

FILE = "audit.json"


def keep_audit(plan: Plan, run_dir: Path, roots: Roots) -> None:
    """Write `run_dir`/audit.json unless it is there already, of this plan's data."""
    mixes = {name: mix for (name, _), mix in plan.inputs.mixes.items()}
    try:
        if _is_of(plan, mixes, DataAudit.model_validate(read_sealed(run_dir / FILE))):
            return
    except (CorruptRecord, ValidationError):
        pass
    audit = audit_data(
        open_source(roots.data_root),
        mixes=[spec for spec in plan.inputs.mix_specs if spec.name in mixes],
        tests=plan.inputs.test_files,
        max_examples=plan.grid.train.max_examples,
    )
    write_sealed(run_dir / FILE, audit.model_dump(mode="json"))


def _is_of(plan: Plan, mixes: dict[str, Mix], audit: DataAudit) -> bool:
    """Whether an audit is of just these files, and of as many rows of them."""
    sources = {name: {s: info["sha256"] for s, info in mix.sources.items()} for name, mix in mixes.items()}
    return (
        audit.version == AUDIT_VERSION
        and {task: of_test.sha256 for task, of_test in audit.tests.items()}
        == {task: file.sha256 for task, file in plan.inputs.test_files.items()}
        and {name: of_mix.sources for name, of_mix in audit.mixes.items()} == sources
        and all(of_mix.max_examples == plan.grid.train.max_examples for of_mix in audit.mixes.values())
    )
