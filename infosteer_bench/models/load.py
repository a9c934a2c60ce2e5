"""Find a model, say exactly which one it is, and load it: safetensors only, no code from the hub.

    resolved = resolve_model("smollm2-135m", model_root=None)      # config and tokenizer at most
    path = materialize(resolved)                                   # now the weights
    model, tokenizer = load_model(path, dtype="float32"), load_tokenizer(path)

A name is looked for as a folder, then below --model-root as ORG/NAME, then on the hub (HF_ENDPOINT, HF_TOKEN and the
hub's own cache apply). A catalog id always means the catalog's model: write ./NAME for a folder of that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.models.catalog import CATALOG, is_hub_id, looks_like_path
from infosteer_bench.models.families import Family, family_of
from infosteer_bench.models.files import (
    TOKENIZER_FILES,
    layer_count,
    read_config,
    supported_family,
    tokenizer_digest,
    tokenizer_kind,
)
from infosteer_bench.models.hub import cached_snapshot, endpoint, hub_error, snapshot
from infosteer_bench.models.weights import (
    INDEX,
    SINGLE,
    check_not_pickle_only,
    count_parameters,
    read_header,
    weight_digest,
    weight_files,
)
from infosteer_bench.records import digest, file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ResolvedModel", "load_model", "load_tokenizer", "materialize", "resolve_model", "weight_digest"]

_SMALL_FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES)
_INSTRUCT = re.compile(r"(^|[-_./])(instruct|it|chat)($|[-_./])", re.IGNORECASE)
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class ResolvedModel:
    """One exact model.

    id: short name (catalog id, folder name or ORG/NAME); path: its folder if local; revision: the hub's commit, or
    "sha256:..." over config, tokenizer and weights; instruct: its name says that it was tuned on instructions.
    """

    id: str
    origin: Literal["hub", "local"]
    hub_id: str | None
    path: Path | None
    revision: str
    tokenizer_digest: str
    family: Family
    parameters: int | None
    n_layers: int
    instruct: bool


def resolve_model(text: str, *, model_root: Path | None, need_weights: bool = True) -> ResolvedModel:
    """Find the model that `text` names and check that it can be used. Downloads config and tokenizer at most.

    need_weights: False accepts a local folder without weights (for a plan that trains nothing); its revision then
    covers config and tokenizer only.

    Raises UserError: unknown name, gated or unreachable repository, unsupported architecture, missing config or
    tokenizer, pickle weights only, missing or truncated shard.
    """
    if model_root is not None and not model_root.expanduser().is_dir():
        raise UserError(f"model root {model_root} is not a folder", hint="give a folder laid out as ORG/NAME")
    if text in CATALOG:
        row = CATALOG[text]
        if row.folder is not None:
            return _resolve_local(row.id, row.folder, hub_id=None, need_weights=need_weights)
        assert row.hub_id is not None
        name, hub_id = row.id, row.hub_id
    else:
        folder = Path(text).expanduser()
        if folder.is_dir():
            return _resolve_local(folder.resolve().name, folder, hub_id=None, need_weights=need_weights)
        if folder.is_file():
            raise UserError(f"model {text} is a file", allowed="the folder that holds config.json and safetensors")
        if looks_like_path(text):
            raise UserError(f"model folder {text} does not exist")
        if not is_hub_id(text):
            raise unknown_name("model", text, CATALOG, hint="or give ORG/NAME of the hub, or a checkpoint folder")
        name = hub_id = text
    if model_root is not None:
        folder = model_root.expanduser() / hub_id
        if folder.is_dir():
            return _resolve_local(name, folder, hub_id=hub_id, need_weights=need_weights)
    return _resolve_hub(name, hub_id)


def materialize(resolved: ResolvedModel) -> Path:
    """The folder with config, tokenizer and safetensors; downloads what is not in the hub's cache.

    Raises UserError if the hub cannot be reached or the download turns out damaged.
    """
    if resolved.path is not None:
        return resolved.path
    assert resolved.hub_id is not None
    path = snapshot(resolved.hub_id, resolved.revision, [*_SMALL_FILES, SINGLE, INDEX, "model-*.safetensors"])
    for file in weight_files(path):
        read_header(file)
    return path


def load_model(path: Path, *, dtype: str) -> PreTrainedModel:
    """The causal language model in `path`, in eval mode on the CPU.

    dtype: float32 or bfloat16. Raises UserError for another dtype, and for weights that do not fill the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    attention = family_of(read_config(path, str(path))).attention
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"model {path} cannot be loaded: {first}") from error
    model, info = loaded
    # transformers fills what is missing with random numbers and only warns.
    wrong = sorted(info["missing_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if wrong:
        raise UserError(f"{path} lacks weights that its config asks for: {wrong[0]} and {len(wrong) - 1} more")
    return model.eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`. Where it has no pad token, EOS serves; the padding side is the caller's to set.

    transformers takes a class of its own choice for some families (Qwen2), which misreads a tokenizer.json of another
    kind, such as the mini-world's word-level one: then the file itself is what counts.
    Raises UserError if it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
        if tokenizer_kind(path) not in (None, _kind(getattr(tokenizer, "backend_tokenizer", None))):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"the tokenizer in {path} cannot be loaded: {first}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _kind(backend: Any) -> str | None:
    return type(backend.model).__name__ if backend is not None else None


def _resolve_local(name: str, folder: Path, *, hub_id: str | None, need_weights: bool) -> ResolvedModel:
    folder = folder.resolve()
    config = read_config(folder, str(folder))
    family = supported_family(config, str(folder))
    tokenizer = tokenizer_digest(folder)
    content: dict[str, Any] = {"config": file_sha256(folder / "config.json"), "tokenizer": tokenizer}
    parameters = None
    if need_weights or (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        parameters = count_parameters(folder)
        content["weights"] = weight_digest(folder)
    return ResolvedModel(
        id=name,
        origin="local",
        hub_id=hub_id,
        path=folder,
        revision=f"sha256:{digest(content, length=64)}",
        tokenizer_digest=tokenizer,
        family=family,
        parameters=parameters,
        n_layers=layer_count(config, str(folder)),
        instruct=_is_instruct(name, hub_id, folder.name),
    )


def _resolve_hub(name: str, hub_id: str) -> ResolvedModel:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        OfflineModeIsEnabled,
    )

    row = CATALOG.get(name)
    parameters = row.parameters if row else None
    try:
        info = HfApi(endpoint=endpoint()).model_info(hub_id)
    except HfHubHTTPError as error:
        raise hub_error(hub_id, error) from None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        # No network, or HF_HUB_OFFLINE: what was downloaded before still serves.
        folder = cached_snapshot(hub_id, error)
    else:
        names = [sibling.rfilename for sibling in info.siblings or []]
        check_not_pickle_only(names, f"hub repository {hub_id}")
        if not {SINGLE, INDEX} & set(names):
            raise UserError(f"hub repository {hub_id} has no safetensors weights", allowed=f"{SINGLE} or {INDEX}")
        if info.safetensors is not None:
            parameters = info.safetensors.total
        # By branch, not by info.sha: only so does the client note which commit is current, for days without network.
        folder = snapshot(hub_id, None, list(_SMALL_FILES))
    config = read_config(folder, f"hub repository {hub_id}")
    family = supported_family(config, f"hub repository {hub_id}")
    return ResolvedModel(
        id=name,
        origin="hub",
        hub_id=hub_id,
        path=None,
        revision=folder.name,  # the hub's cache names a snapshot's folder by its commit
        tokenizer_digest=tokenizer_digest(folder),
        family=family,
        parameters=parameters,
        n_layers=layer_count(config, f"hub repository {hub_id}"),
        instruct=_is_instruct(name, hub_id),
    )


def _is_instruct(*names: str | None) -> bool:
    return any(_INSTRUCT.search(name) for name in names if name)
