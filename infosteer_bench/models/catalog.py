"""The models that grids name: one row each. The revision is resolved and recorded at download, not fixed here.

Those of the mini-world (`folder`) come with the package, whose build record says how they were pretrained.

Adding a model is one more row. `select_models` reads what --models was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.models.families import FAMILIES


@dataclass(frozen=True)
class ModelRow:
    """id: our short name; parameters: count; gated: the hub asks for a licence click; paper_name: as in its tables;
    folder: where an embedded model lies in the package (its hub_id is None)."""

    id: str
    hub_id: str | None
    family: str
    licence: str
    parameters: int
    gated: bool
    paper_name: str | None = None
    folder: Path | None = None


MINIWORLD = Path(__file__).parent.parent / "data" / "miniworld" / "models"


CATALOG: dict[str, ModelRow] = {
    row.id: row
    for row in (
        ModelRow("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", "qwen2", "Apache-2.0", 1_543_714_304, False, "Qwen2.5-1.5B"),
        ModelRow("qwen2.5-7b", "Qwen/Qwen2.5-7B", "qwen2", "Apache-2.0", 7_615_616_512, False, "Qwen2.5-7B"),
        ModelRow("llama-3.2-1b", "meta-llama/Llama-3.2-1B", "llama", "Llama 3.2", 1_235_814_400, True, "Llama-3.2-1B"),
        ModelRow("llama-3-8b", "meta-llama/Meta-Llama-3-8B", "llama", "Llama 3", 8_030_261_248, True, "Llama-3-8B"),
        ModelRow("gemma-2-2b", "google/gemma-2-2b", "gemma2", "Gemma", 2_614_341_888, True, "Gemma-2-2B"),
        ModelRow("gemma-2-9b", "google/gemma-2-9b", "gemma2", "Gemma", 9_241_705_984, True, "Gemma-2-9B"),
        ModelRow("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", "llama", "Apache-2.0", 134_515_008, False),
        ModelRow("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", "qwen2", "Apache-2.0", 494_032_768, False),
        ModelRow("gemma-3-270m", "google/gemma-3-270m", "gemma3", "Gemma", 268_098_176, True),
        *(
            ModelRow(
                f"mini-{family}", None, family, "Apache-2.0", parameters, False, folder=MINIWORLD / f"mini-{family}"
            )
            for family, parameters in (("qwen2", 1_707_648), ("llama", 1_705_856), ("gemma2", 1_543_808))
        ),
    )
}


def select_models(texts: Sequence[str], *, grid_models: Sequence[str]) -> list[str]:
    """What --models means, in the order given and without repeats.

    "all": the grid's models. A family (qwen2, gemma3, ...) or group (qwen, llama, gemma): the catalog's rows of it
    that the grid has, or all of the catalog's if the grid has none. A catalog id, "ORG/NAME" or a folder: itself.
    Raises UserError for anything else, with the nearest names.
    """
    chosen: list[str] = []
    for text in (part.strip() for given in texts for part in given.split(",")):
        if not text:
            raise UserError("--models has an empty name in its list", allowed=_allowed())
        if text == "all":
            chosen.extend(grid_models)
        elif text in CATALOG:
            chosen.append(text)
        elif text in _family_names():
            rows = [row.id for row in CATALOG.values() if text in (row.family, FAMILIES[row.family].group)]
            if not rows:
                raise UserError(f"the catalog has no {text} model", allowed=_allowed())
            chosen.extend([name for name in rows if name in grid_models] or rows)
        elif Path(text).expanduser().is_dir() or is_hub_id(text):
            chosen.append(text)
        elif looks_like_path(text):
            raise UserError(f"model folder {text} does not exist", allowed=_allowed())
        else:
            names = [*CATALOG, *_family_names(), "all"]
            raise unknown_name("model", text, names, hint="or give ORG/NAME of the hub, or the path of a checkpoint")
    return list(dict.fromkeys(chosen))


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form ORG/NAME."""
    parts = text.split("/")
    return len(parts) == 2 and all(part and part[0] not in ".~-" and part[-1] not in ".-" for part in parts)


def looks_like_path(text: str) -> bool:
    """Whether `text` can only be meant as a path."""
    return text.startswith((".", "~", "/")) or text.endswith("/") or text.count("/") > 1


def _family_names() -> list[str]:
    return sorted({*FAMILIES, *(family.group for family in FAMILIES.values())})


def _allowed() -> str:
    return f"all, {', '.join(_family_names())}, {', '.join(CATALOG)}, ORG/NAME, or a checkpoint folder"
