"""The hub path with the real clients against a loopback hub: open, gated, pickled, damaged, offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub

from infosteer_bench.errors import UserError
from infosteer_bench.models.load import load_model, load_tokenizer, materialize, resolve_model

GATED, TOKEN = "meta-llama/Llama-3.2-1B", "hf_loopback"


@pytest.fixture
def served(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: Path
) -> Iterator[Hub]:
    """A hub with an open model, a gated one, and a few that cannot be used."""
    root = tmp_path / "hub"
    shutil.copytree(tiny_models["qwen2"], root / "Qwen/Qwen2.5-1.5B")
    (root / "Qwen/Qwen2.5-1.5B/original").mkdir()
    (root / "Qwen/Qwen2.5-1.5B/original/model.safetensors").write_text("of another format")
    (root / "Qwen/Qwen2.5-1.5B/pytorch_model.bin").write_text("never to be fetched")
    shutil.copytree(tiny_models["llama"], root / GATED)
    for name in ("Pickle", "Gpt", "Damaged", "Bare"):
        shutil.copytree(tiny_models["llama"], root / "Some" / name)
    (root / "Some/Pickle/model.safetensors").rename(root / "Some/Pickle/pytorch_model.bin")
    (root / "Some/Bare/model.safetensors").unlink()
    config = json.loads((root / "Some/Gpt/config.json").read_text())
    (root / "Some/Gpt/config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    weights = root / "Some/Damaged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with Hub(root, gated={GATED: TOKEN}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_resolve_downloads_no_weights_and_materialize_only_safetensors(served: Hub) -> None:
    resolved = resolve_model("qwen2.5-1.5b", model_root=None)
    assert (resolved.origin, resolved.hub_id, resolved.path) == ("hub", "Qwen/Qwen2.5-1.5B", None)
    assert resolved.revision == served.commit(served.root / "Qwen/Qwen2.5-1.5B")
    assert resolved.family.name == "qwen2"
    assert served.count("safetensors") == 0
    path = materialize(resolved)
    assert served.count("model.safetensors") == 1
    assert served.count("pytorch_model.bin") + served.count("original/") == 0
    model, tokenizer = load_model(path, dtype="float32"), load_tokenizer(path)
    assert model.config.vocab_size == len(tokenizer)
    again = resolve_model("Qwen/Qwen2.5-1.5B", model_root=None)
    assert again.revision == resolved.revision
    assert materialize(again) == path
    assert served.count("model.safetensors") == 1  # from the client's cache


def test_the_local_and_the_hubs_tokenizer_digest_agree(served: Hub, tiny_models: dict[str, Path]) -> None:
    local = resolve_model(str(tiny_models["qwen2"]), model_root=None)
    assert resolve_model("qwen2.5-1.5b", model_root=None).tokenizer_digest == local.tokenizer_digest


def test_a_new_commit_is_a_new_revision(served: Hub) -> None:
    first = resolve_model("qwen2.5-1.5b", model_root=None)
    file = served.root / "Qwen/Qwen2.5-1.5B/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rms_norm_eps": 1e-5}))
    assert resolve_model("qwen2.5-1.5b", model_root=None).revision != first.revision


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_gated_without_access_says_what_to_do(served: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=r"meta-llama/Llama-3\.2-1B is gated.*licence.*hf auth login.*HF_TOKEN") as told:
        resolve_model("llama-3.2-1b", model_root=None)
    assert "\n" not in str(told.value)


def test_gated_with_the_right_token(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolved = resolve_model("llama-3.2-1b", model_root=None)
    assert resolved.family.name == "llama"
    assert (materialize(resolved) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Some/Pickle", r"pytorch_model\.bin.*never loaded"),
        ("Some/Bare", "has no safetensors weights"),
        ("Some/Gpt", "Some/Gpt: architecture 'GPT2LMHeadModel' is not supported"),
        ("Some/Absent", "the hub has no model Some/Absent"),
        ("Some/-bad--name..", "unknown model|is not a hub repository name"),
    ],
)
def test_unusable_repositories(served: Hub, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_model(name, model_root=None)
    assert served.count("pytorch_model.bin") == 0


def test_damaged_weights_are_found_on_arrival(served: Hub) -> None:
    with pytest.raises(UserError, match="truncated or damaged"):
        materialize(resolve_model("Some/Damaged", model_root=None))


def test_without_network_the_cache_serves(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resolve_model("qwen2.5-1.5b", model_root=None)
    path = materialize(before)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    after = resolve_model("qwen2.5-1.5b", model_root=None)
    assert after == before
    assert materialize(after) == path
    with pytest.raises(UserError, match=r"google/gemma-2-2b cannot be had from the hub.*--model-root"):
        resolve_model("gemma-2-2b", model_root=None)


def test_model_root_comes_before_the_hub(served: Hub, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_models["qwen2"], tmp_path / "root/Qwen/Qwen2.5-1.5B")
    assert resolve_model("qwen2.5-1.5b", model_root=tmp_path / "root").origin == "local"
    assert served.requests == []
    assert resolve_model("Some/Damaged", model_root=tmp_path / "root").origin == "hub"


def test_the_server_as_a_process_serves_transformers(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """As subprocess tests use it: HF_ENDPOINT alone, read by an unmodified client."""
    shutil.copytree(tiny_models["gemma3"], tmp_path / "hub/google/gemma-3-270m")
    port = tmp_path / "port"
    server = Path(__file__).parent.parent / "hub.py"
    command = [sys.executable, str(server), "--root", str(tmp_path / "hub"), "--port-file", str(port)]
    with subprocess.Popen([*command, "--gated", f"google/gemma-3-270m={TOKEN}"]) as process:
        try:
            deadline = time.monotonic() + 30
            while not port.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            url = f"http://127.0.0.1:{port.read_text()}"
            environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
            environment["HF_HOME"] = str(tmp_path / "home")
            code = (
                "from transformers import AutoConfig as C; print(C.from_pretrained('google/gemma-3-270m').model_type)"
            )
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            assert done.stdout.strip() == "gemma3_text", done.stderr
            with urllib.request.urlopen(f"{url}/_requests") as response:
                assert any("config.json" in path for _, path in json.load(response))
        finally:
            process.terminate()
    assert process.returncode == 0
