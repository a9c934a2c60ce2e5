"""The models that grids name: one row each. The revision is resolved and recorded at download, not fixed here.

The paper's six stand in benchmark.py. Those of the mini-world (`folder`)
come with the package, whose build record says how they were pretrained.

Adding a model is one more row. `select_models` reads what --models was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infosteer_bench.benchmark import PAPER_MODELS, ModelRow, Shape
from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.models.families import FAMILIES

MINI_MODELS = Path(__file__).parent.parent / "data" / "miniworld" / "models"


CATALOG: dict[str, ModelRow] = PAPER_MODELS | {
    row.id: row
    for row in (
        ModelRow(
            *("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", "llama", "Apache-2.0", 134_515_008, False),
            Shape(576, 1536, 30, 9, 3, 49_152, 64, True),
        ),
        ModelRow(
            *("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", "qwen2", "Apache-2.0", 494_032_768, False),
            Shape(896, 4864, 24, 14, 2, 151_936, 64, True),
        ),
        ModelRow(
            *("gemma-3-270m", "google/gemma-3-270m", "gemma3", "Gemma", 268_098_176, True),
            Shape(640, 2048, 18, 4, 1, 262_144, 256, True),
        ),
        *(
            ModelRow(
                f"mini-{family}", None, family, "Apache-2.0", parameters, False, folder=MINI_MODELS / f"mini-{family}"
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
