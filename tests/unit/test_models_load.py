"""Resolving and loading from folders: revisions, digests, and every folder that is no usable checkpoint."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILY_NAMES, build_tiny

from infosteer_bench.cache import remembered_digest
from infosteer_bench.errors import UserError
from infosteer_bench.models.load import (
    load_model,
    load_tokenizer,
    materialize,
    resolve_model,
    weight_digest,
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint that a test may break."""
    return Path(shutil.copytree(tiny_models["llama"], tmp_path / "tiny-llama"))


def _shard(folder: Path) -> None:
    """Split model.safetensors into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file, metadata={"format": "pt"})
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_resolves_and_loads(tiny_models: dict[str, Path], family: str) -> None:
    path = tiny_models[family]
    resolved = resolve_model(str(path), model_root=None)
    assert (resolved.id, resolved.origin, resolved.hub_id) == (f"tiny-{family}", "local", None)
    assert resolved.family.name == family
    assert resolved.revision.startswith("sha256:")
    assert len(resolved.revision) == 7 + 64
    assert materialize(resolved) == resolved.path == path.resolve()
    model, tokenizer = load_model(path, dtype="bfloat16"), load_tokenizer(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert resolved.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert tokenizer.pad_token_id is not None
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) == (family == "llama")


def test_model_root_holds_catalog_ids_and_hub_ids(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_models["qwen2"], tmp_path / "Qwen" / "Qwen2.5-1.5B")
    by_id = resolve_model("qwen2.5-1.5b", model_root=tmp_path)
    assert (by_id.id, by_id.hub_id, by_id.origin) == ("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", "local")
    by_name = resolve_model("Qwen/Qwen2.5-1.5B", model_root=tmp_path)
    assert by_name.id == "Qwen/Qwen2.5-1.5B"
    assert by_name.revision == by_id.revision
    with pytest.raises(UserError, match=r"model root .* is not a folder"):
        resolve_model("qwen2.5-1.5b", model_root=tmp_path / "none")


def test_a_catalog_id_is_never_a_folder_of_that_name(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "qwen2.5-7b")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Qwen/Qwen2\.5-7B cannot be had from the hub"):
        resolve_model("qwen2.5-7b", model_root=None)  # offline here, so the hub it is
    assert resolve_model("./qwen2.5-7b", model_root=None).family.name == "llama"


@pytest.mark.parametrize(
    ("name", "instruct"),
    [("SmolLM2-135M-Instruct", True), ("gemma-2-2b-it", True), ("my-chat-model", True), ("chatty", False),
     ("italic-1b", False), ("Llama-3.2-1B", False)],
)  # fmt: skip
def test_instruct_is_read_from_the_name(folder: Path, name: str, instruct: bool) -> None:
    renamed = folder.rename(folder.parent / name)
    assert resolve_model(str(renamed), model_root=None).instruct is instruct


def test_revision_follows_config_tokenizer_and_weights(folder: Path) -> None:
    def revision() -> str:
        return resolve_model(str(folder), model_root=None).revision

    first = revision()
    (folder / "README.md").write_text("changes nothing")
    assert revision() == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    second = revision()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    third = revision()
    build_tiny("llama", folder, seed=1)
    assert len({first, second, third, revision()}) == 4


def test_weight_digest_ignores_sharding_and_metadata(folder: Path) -> None:
    whole = weight_digest(folder)
    _shard(folder)
    assert weight_digest(folder) == whole
    assert resolve_model(str(folder), model_root=None).parameters == sum(
        p.numel() for p in load_model(folder, dtype="float32").parameters()
    )


def test_weight_digest_sees_names_shapes_dtypes_and_bytes(tmp_path: Path) -> None:
    variants = [
        {"a": torch.zeros(2, 3)},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": torch.tensor([[0.0, 0, 0], [0, 0, 1]])},
    ]
    digests = set()
    for number, tensors in enumerate(variants):
        (tmp_path / str(number)).mkdir()
        save_file(tensors, tmp_path / str(number) / "model.safetensors")
        digests.add(weight_digest(tmp_path / str(number)))
    assert len(digests) == len(variants)


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, calls = tmp_path / "file", []

    def compute() -> str:
        calls.append(1)
        return file.read_text()

    file.write_text("one")
    assert [remembered_digest("x", [file], compute) for _ in range(3)] == ["one"] * 3
    assert len(calls) == 1
    assert remembered_digest("y", [file], lambda: "other kind") == "other kind"
    replacement = tmp_path / "new"
    replacement.write_text("two")
    replacement.replace(file)
    assert remembered_digest("x", [file], compute) == "two"
    for entry in (tmp_path / "cache" / "digests").iterdir():
        entry.write_text("{broken")
    assert remembered_digest("x", [file], compute) == "two"
    assert len(calls) == 3


def test_an_unwritable_cache_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocked").write_text("a file, not a folder")
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path / "blocked"))
    assert remembered_digest("x", [tmp_path / "blocked"], lambda: "value") == "value"


def _edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle_only(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _lose_shard(folder: Path) -> None:
    _shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _cut_shard(folder: Path) -> None:
    _shard(folder)
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes() + b"tail")


def _adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")


def _write_weights(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def _bad_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")


BREAKS: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    (_adapter, "it is an adapter: merge it"),
    (lambda f: (f / "config.json").write_text("{"), "not readable JSON"),
    (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    (lambda f: _edit_config(f, architectures=["GPT2LMHeadModel"]), r"GPT2LMHeadModel.*allowed: Qwen2ForCausalLM"),
    (lambda f: _edit_config(f, quantization_config={"quant_method": "gptq"}), "quantised"),
    (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    (_pickle_only, r"pytorch_model\.bin.*never loaded.*convert"),
    (_cut, "truncated or damaged"),
    (_lose_shard, r"lacks 1 of 2 weight shards, first model-00002"),
    (_cut_shard, "truncated or damaged"),
    (_bad_index, "not a readable index"),
    (_write_weights(b""), "not a readable safetensors"),
    (_write_weights(b"\x80\x04pickle-like-bytes"), "not a readable safetensors"),
    (_write_weights(struct.pack("<Q", 2) + b"{}"), "not a readable safetensors"),
    (_write_weights(struct.pack("<Q", 10**12) + b"{"), "not a readable safetensors"),
]


@pytest.mark.parametrize(("damage", "message"), BREAKS, ids=[message[:24] for _, message in BREAKS])
def test_unusable_folders_are_refused(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message):
        resolve_model(str(folder), model_root=None)


def test_without_weights_only_where_none_are_needed(folder: Path) -> None:
    full = resolve_model(str(folder), model_root=None)
    assert resolve_model(str(folder), model_root=None, need_weights=False) == full
    (folder / "model.safetensors").unlink()
    bare = resolve_model(str(folder), model_root=None, need_weights=False)
    assert bare.parameters is None
    assert bare.revision != full.revision


@pytest.mark.parametrize(
    ("text", "message"),
    [("smolm2-135m", "did you mean 'smollm2-135m'"), ("./gone", "does not exist"), ("a/b/c", "does not exist")],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_model(text, model_root=None)


def test_a_file_is_no_model(folder: Path) -> None:
    with pytest.raises(UserError, match="is a file"):
        resolve_model(str(folder / "model.safetensors"), model_root=None)


def test_weights_that_do_not_fill_the_model_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights.*layers\.1\.mlp\.down_proj"):
        load_model(folder, dtype="float32")


def test_unknown_dtype(folder: Path) -> None:
    with pytest.raises(UserError, match="unknown dtype 'float16'"):
        load_model(folder, dtype="float16")


def test_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer in .* cannot be loaded"):
        load_tokenizer(folder)


def test_code_in_a_checkpoint_is_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').write('x')\nclass M: pass\n")
    _edit_config(folder, auto_map={"AutoModelForCausalLM": "evil.M", "AutoConfig": "evil.M"})
    load_model(folder, dtype="float32")
    load_tokenizer(folder)
    assert not mark.exists()


def test_gemma2_keeps_its_soft_capping(tiny_models: dict[str, Path]) -> None:
    """The default attention of transformers ignores attn_logit_softcapping; ours computes it."""
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 45)[None]
    model = load_model(tiny_models["gemma2"], dtype="float32")
    assert model.config.attn_logit_softcapping
    capped = AutoModelForCausalLM.from_pretrained(tiny_models["gemma2"], attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, capped(ids).logits)
    model.save_pretrained(tiny_models["gemma2"].parent / "resaved")
    assert "attn_implementation" not in (tiny_models["gemma2"].parent / "resaved/config.json").read_text()
