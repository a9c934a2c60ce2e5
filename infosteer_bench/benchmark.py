"""The paper's benchmark: its fifteen tasks and six models, a row each; groups, mixes, folders and titles follow.

    TASKS["siqa"].folder            # "social_i_qa", below dataset/ upstream
    GROUPS["ood"]                   # the six tasks that nothing is trained for
    PAPER_MODELS["llama-3-8b"].shape.layers

Names and prompts are those of LLM-Adapters (arXiv 2304.01933); splits are the paper's (5.1); which task is of which of
its five types the paper does not say (Table 3), so that column is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TaskRow:
    """One task.

    folder: below `dataset/` of LLM-Adapters. mix: whose checkpoints answer it. trained: whether the mix holds its
    training rows, so that it is in distribution (ID), else OOD. title: as in the paper's tables. test_items and
    train_rows: in the pinned files. characters: of a row, prompt and answer, on average (HellaSwag: of its test rows).
    """

    name: str
    folder: str
    mix: str
    trained: bool
    type: str
    kind: str
    title: str
    test_items: int
    train_rows: int
    characters: int

    @property
    def test_file(self) -> str:
        """Relative to a data root."""
        return f"dataset/{self.folder}/test.json"

    @property
    def split(self) -> str:
        """ID or OOD."""
        return "ID" if self.trained else "OOD"


TASKS: dict[str, TaskRow] = {
    row.name: row
    for row in (
        TaskRow("boolq", "boolq", "commonsense", True, "reading", "choice", "BoolQ", 3270, 9427, 165),
        TaskRow("piqa", "piqa", "commonsense", True, "commonsense", "choice", "PIQA", 1838, 16113, 380),
        TaskRow("siqa", "social_i_qa", "commonsense", True, "commonsense", "choice", "SIQA", 1954, 33410, 315),
        TaskRow("hellaswag", "hellaswag", "commonsense", True, "commonsense", "choice", "HellaS.", 10042, 39905, 950),
        TaskRow("winogrande", "winogrande", "commonsense", True, "linguistic", "choice", "WinoG.", 1267, 40398, 278),
        TaskRow("arc_easy", "ARC-Easy", "commonsense", True, "knowledge", "choice", "ARC-e", 2376, 2251, 370),
        TaskRow("arc_challenge", "ARC-Challenge", "commonsense", True, "knowledge", "choice", "ARC-c", 1172, 1119, 408),
        TaskRow("openbookqa", "openbookqa", "commonsense", True, "knowledge", "choice", "OBQA", 500, 4957, 286),
        TaskRow("gsm8k", "gsm8k", "gsm8k", True, "math", "number", "GSM8K", 1319, 7473, 522),
        TaskRow("addsub", "AddSub", "gsm8k", False, "math", "number", "AddSub", 395, 0, 322),
        TaskRow("singleeq", "SingleEq", "gsm8k", False, "math", "number", "SingleEq", 508, 0, 307),
        TaskRow("multiarith", "MultiArith", "gsm8k", False, "math", "number", "MultiA.", 600, 0, 350),
        TaskRow("aqua", "AQuA", "gsm8k", False, "math", "letter", "AQuA", 254, 0, 491),
        TaskRow("mawps", "mawps", "gsm8k", False, "math", "number", "MAWPS", 238, 0, 145),
        TaskRow("svamp", "SVAMP", "gsm8k", False, "math", "number", "SVAMP", 1000, 0, 351),
    )
}
"""In the order in which tasks are shown."""

TYPES = ("reading", "knowledge", "commonsense", "linguistic", "math")


def _tasks(holds: Callable[[TaskRow], bool]) -> tuple[str, ...]:
    return tuple(row.name for row in TASKS.values() if holds(row))


GROUPS: dict[str, tuple[str, ...]] = {
    "id": _tasks(lambda row: row.trained),
    "ood": _tasks(lambda row: not row.trained),
    "ood5": _tasks(lambda row: not row.trained and row.name != "aqua"),
    "all": tuple(TASKS),
    **{kind: _tasks(lambda row, kind=kind: row.type == kind) for kind in TYPES},
}
"""Task names behind each group name; every group is a mean on a board."""

COMMONSENSE = _tasks(lambda row: row.mix == "commonsense")
MATH = _tasks(lambda row: row.mix == "gsm8k")
MIXES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (
        _tasks(lambda row, name=name: row.mix == name and row.trained),
        _tasks(lambda row, name=name: row.mix == name),
    )
    for name in dict.fromkeys(row.mix for row in TASKS.values())
}
"""By training mix: the tasks whose training rows it holds, and those that its checkpoints answer."""


@dataclass(frozen=True)
class Shape:
    """Widths of a model, as its config.json on the hub has them.

    hidden: D. ffn: F. layers: L. vocab: V. heads, kv_heads, head_dim: of attention. tied: head and embedding are one.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    head_dim: int
    tied: bool


@dataclass(frozen=True)
class ModelRow:
    """id: our short name; parameters: count; gated: the hub asks for a licence click; paper_name: as in its tables;
    folder: where an embedded model lies in the package (its hub_id is None, its shape in its own config.json)."""

    id: str
    hub_id: str | None
    family: str
    licence: str
    parameters: int
    gated: bool
    shape: Shape | None = None
    paper_name: str | None = None
    folder: Path | None = None


PAPER_MODELS: dict[str, ModelRow] = {
    row.id: row
    for row in (
        ModelRow(
            *("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", "qwen2", "Apache-2.0", 1_543_714_304, False),
            *(Shape(1536, 8960, 28, 12, 2, 151_936, 128, True), "Qwen2.5-1.5B"),
        ),
        ModelRow(
            *("qwen2.5-7b", "Qwen/Qwen2.5-7B", "qwen2", "Apache-2.0", 7_615_616_512, False),
            *(Shape(3584, 18_944, 28, 28, 4, 152_064, 128, False), "Qwen2.5-7B"),
        ),
        ModelRow(
            *("llama-3.2-1b", "meta-llama/Llama-3.2-1B", "llama", "Llama 3.2", 1_235_814_400, True),
            *(Shape(2048, 8192, 16, 32, 8, 128_256, 64, True), "Llama-3.2-1B"),
        ),
        ModelRow(
            *("llama-3-8b", "meta-llama/Meta-Llama-3-8B", "llama", "Llama 3", 8_030_261_248, True),
            *(Shape(4096, 14_336, 32, 32, 8, 128_256, 128, False), "Llama-3-8B"),
        ),
        ModelRow(
            *("gemma-2-2b", "google/gemma-2-2b", "gemma2", "Gemma", 2_614_341_888, True),
            *(Shape(2304, 9216, 26, 8, 4, 256_000, 256, True), "Gemma-2-2B"),
        ),
        ModelRow(
            *("gemma-2-9b", "google/gemma-2-9b", "gemma2", "Gemma", 9_241_705_984, True),
            *(Shape(3584, 14_336, 42, 16, 8, 256_000, 256, True), "Gemma-2-9B"),
        ),
    )
}
