"""Config and tokenizer of a checkpoint folder, read and checked without transformers.

config = read_config(folder, str(folder))
family = supported_family(config, str(folder))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infosteer_bench.cache import remembered_digest
from infosteer_bench.errors import UserError
from infosteer_bench.models.families import Family, family_of
from infosteer_bench.records import digest, file_sha256

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def read_config(folder: Path, where: str) -> dict[str, Any]:
    """config.json as an object. where: what the folder is, for messages. Raises UserError if it cannot be read."""
    path = folder / "config.json"
    if not path.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = "it is an adapter: merge it into its base model first" if adapter else None
        raise UserError(f"{where} has no config.json, so it is no checkpoint", hint=hint)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"config.json of {where} is not readable JSON") from None
    if not isinstance(config, dict):
        raise UserError(f"config.json of {where} holds no JSON object")
    return config


def supported_family(config: dict[str, Any], where: str) -> Family:
    """The family of a config.json. Raises UserError for one that cannot be fine-tuned here."""
    try:
        family = family_of(config)
    except UserError as error:
        raise UserError(f"{where}: {error.what}", allowed=error.allowed) from None
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f"config.json of {where} states no model_type, so transformers cannot load it",
            hint=f'add "model_type": "{family.model_type}" to it',
        )
    if config.get("quantization_config"):
        raise UserError(f"{where} is a quantised checkpoint, which cannot be fine-tuned here", allowed="float weights")
    return family


def layer_count(config: dict[str, Any], where: str) -> int:
    """How many decoder layers config.json states. Raises UserError if it does not."""
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{where}: num_hidden_layers is {count!r} in config.json", allowed="a whole number above 0")
    return count


def tokenizer_digest(folder: Path) -> str:
    """Digest of the tokenizer's files. Raises UserError if there is none, or tokenizer.json is damaged."""
    files = {name: file_sha256(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(files):
        raise UserError(f"{folder} has no tokenizer", allowed="tokenizer.json, or tokenizer.model, or vocab.json")
    if "tokenizer.json" in files:
        # Remembered: Gemma's has 30 MB, and every plan comes by here.
        remembered_digest("tokenizer kind", [folder / "tokenizer.json"], lambda: digest(tokenizer_kind(folder)))
    return digest(files, length=32)


def tokenizer_kind(path: Path) -> str | None:
    """The model type (BPE, WordLevel, ...) that tokenizer.json states; None without the file.

    Raises UserError if the file is no tokenizer.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))["model"].get("type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{file} is no tokenizer, or damaged", hint="copy it again from where the checkpoint came from"
        ) from None
