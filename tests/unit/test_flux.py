"""Information flux: entropies that are known, surprisal, greedy writing, prompts, the command."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import FAMILY_NAMES, build_tiny

from infosteer_bench.analysis.flux import end_ids, measure, text_of, tokens_of, write_greedily
from infosteer_bench.analysis.prompts import BUILTIN, read_prompts
from infosteer_bench.analysis.words import decode_pieces
from infosteer_bench.cli import main
from infosteer_bench.errors import UserError
from infosteer_bench.memory.entropy import key_entropy_reference
from infosteer_bench.memory.tap import Tap
from infosteer_bench.models.families import decoder, ffn_layers
from infosteer_bench.models.load import load_model, load_tokenizer

F = 160


# --- what is measured


@pytest.mark.parametrize(("engaged", "expected"), [(1, 0.0), (7, math.log(7)), (F, math.log(F))])
def test_known_keys_have_known_entropy(tiny_models: dict[str, Path], engaged: int, expected: float):
    model = load_model(tiny_models["llama"], dtype="float32")

    def keys(k: torch.Tensor, layer: int) -> torch.Tensor:  # `engaged` equal magnitudes, of either sign, and zeros
        made = torch.zeros_like(k)
        made[..., :engaged] = 0.25 * (layer + 1)
        made[..., :engaged:2] *= -1
        return made

    with Tap(root=decoder(model), layers=dict(enumerate(ffn_layers(model))), edit=keys):
        flux = measure(model, [5, 6, 7, 8])
    assert flux.entropy.shape == (4, 2)
    assert flux.entropy.numpy() == pytest.approx(np.full((4, 2), expected), abs=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_entropy_and_surprisal_are_of_the_token_that_is_read(tiny_models: dict[str, Path], family: str):
    model = load_model(tiny_models[family], dtype="float32")
    ids = [3, 9, 40, 41, 9, 100, 7]
    seen: list[torch.Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0])) for module in ffn_layers(model)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    for hook in hooks:
        hook.remove()
    flux = measure(model, ids)
    expected = torch.stack([key_entropy_reference(k) for k in seen], dim=-1)
    assert flux.entropy.numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    assert math.isnan(flux.surprisal[0])
    losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    assert flux.surprisal[1:].numpy() == pytest.approx(losses.numpy(), abs=1e-5)
    # causal: what comes after a token changes neither number
    assert measure(model, ids[:4]).entropy.numpy() == pytest.approx(flux.entropy[:4].numpy(), abs=1e-4)


def test_surprisal_of_a_long_text_goes_through_blocks_unchanged(tiny_models: dict[str, Path]):
    model = load_model(tiny_models["qwen2"], dtype="float32")
    ids = [n * 37 % 300 for n in range(515)]
    flux = measure(model, ids)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            model(torch.tensor([ids])).logits[0, :-1].float(), torch.tensor(ids[1:]), reduction="none"
        )
    assert flux.surprisal[1:].numpy() == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_writing_is_plain_greedy_whatever_the_generation_config_asks_for(tiny_models: dict[str, Path], family: str):
    model = load_model(tiny_models[family], dtype="float32")
    ids = [3, 9, 40, 41]
    longer = list(ids)
    with torch.no_grad():
        for _ in range(8):
            longer.append(int(model(torch.tensor([longer])).logits[0, -1].argmax()))
    model.generation_config.repetition_penalty = 50.0
    written = write_greedily(model, ids, max_new_tokens=8, end_ids=[])
    assert written == longer[4:]
    assert write_greedily(model, ids, max_new_tokens=8, end_ids=[written[0]]) == written[:1]


def test_every_end_token_counts(tiny_models: dict[str, Path]):
    model, tokenizer = load_model(tiny_models["llama"], dtype="float32"), load_tokenizer(tiny_models["llama"])
    model.generation_config.eos_token_id = [7, 8]
    assert end_ids(model, tokenizer) == {7, 8, tokenizer.eos_token_id}


def test_rows_of_a_text(tiny_models: dict[str, Path]):
    model, tokenizer = load_model(tiny_models["llama"], dtype="float32"), load_tokenizer(tiny_models["llama"])
    ids = tokenizer("The 12 apples")["input_ids"]
    text = text_of(tokenizer, "fruit", ids, tokenizer(" 12 pears", add_special_tokens=False)["input_ids"])
    flux = measure(model, text.ids)
    rows = tokens_of("tiny", text, flux, log_width=math.log(F))
    assert rows[0].word_class == "special"
    assert "".join(row.text for row in rows[1:]) == "The 12 apples 12 pears"
    assert {row.part for row in rows[: len(ids)]} == {"prompt"}
    assert {row.part for row in rows[len(ids) :]} == {"written"}
    assert rows[0].surprisal_nats is None
    assert rows[-1].next_surprisal_nats is None
    assert [row.next_surprisal_nats for row in rows[:-1]] == [row.surprisal_nats for row in rows[1:]]
    assert rows[2].entropy_nats == pytest.approx(flux.entropy[2].mean().item())
    assert rows[2].entropy_share == pytest.approx(rows[2].entropy_nats / math.log(F))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_pieces_put_together_are_the_text(tiny_models: dict[str, Path], family: str):
    tokenizer = load_tokenizer(tiny_models[family])
    text = "Größe: 12 apples 🍎 <script>\n\n  naïve  end 🍏"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = decode_pieces(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text
    assert pieces.count("") >= 6, "bytes of one character are one piece"
    cut = decode_pieces(tokenizer, ids[:-1])
    assert "".join(cut).endswith("\ufffd")


# --- files and commands


def test_prompts(tmp_path: Path):
    assert read_prompts("builtin") == list(BUILTIN)
    assert len(BUILTIN) == 4
    plain, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("one\ntwo words\n", encoding="utf-8")
    assert [prompt.text for prompt in read_prompts(str(plain))] == ["one", "two words"]
    lines.write_text('{"prompt": "a\\nb", "name": "first"}\n{"prompt": "c"}\n', encoding="utf-8")
    assert read_prompts(str(lines)) == [("first", "a\nb"), ("prompt 2", "c")]


def test_a_prompt_may_hold_unicodes_other_line_breaks(tmp_path: Path):
    """And a file may be as Windows writes it: with a byte order mark and carriage returns."""
    lines, plain = tmp_path / "p.jsonl", tmp_path / "p.txt"
    lines.write_bytes('\ufeff{"prompt": "a\u2028b\x85c"}\r\n{"prompt": "d"}\r\n'.encode())
    assert [prompt.text for prompt in read_prompts(str(lines))] == ["a\u2028b\x85c", "d"]
    plain.write_bytes("\ufeffone\r\ntwo\u2029three".encode())
    assert [prompt.text for prompt in read_prompts(str(plain))] == ["one", "two\u2029three"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "", "empty"),
        ("p.txt", "one\n  \n", "line 2 holds an empty prompt"),
        ("p.jsonl", '{"prompt": ""}\n', "line 1 holds an empty prompt"),
        ("p.jsonl", '{"text": "a"}\n', "line 1 is no object"),
        ("p.jsonl", "[]\n", "line 1 is no object"),
        ("p.jsonl", '{"prompt": "a", "name": "n"}\n{"prompt": "b", "name": "n"}\n', "two prompts"),
        ("p.txt", b"\xff\xfe", "no UTF-8"),
    ],
)
def test_bad_prompts(tmp_path: Path, name: str, content: str | bytes, says: str):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says):
        read_prompts(str(path))


def test_the_command(tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = build_tiny("llama", tmp_path / "other", seed=1)
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "Is <script> 12 + 5 = 17?", "name": "sum"}\n', encoding="utf-8")
    arguments = ["analyze", "flux", "--checkpoint", f"base={tiny_models['llama']}", "--compare", str(other)]
    arguments += ["--prompts", str(prompts), "--max-new-tokens", "24", "--output", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 0
    out = capsys.readouterr()
    assert "base: all tokens" in out.out
    assert out.err == ""
    found = json.loads((tmp_path / "out" / "flux.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((tmp_path / "out" / "flux.csv").open(encoding="utf-8")))
    assert [model["label"] for model in found["models"]] == ["base", "other"]
    assert len(rows) == sum(len(model["tokens"]) for model in found["models"])
    first, second = (model["tokens"] for model in found["models"])
    assert [row["token_id"] for row in first] == [row["token_id"] for row in second], "both read the same tokens"
    assert [row["entropy_nats"] for row in first] != [row["entropy_nats"] for row in second]
    assert first[3]["entropy_nats"] == pytest.approx(sum(first[3]["entropy_nats_by_layer"]) / 2, abs=1e-5)
    assert found["differences"][0]["word_class"] == "all"
    assert "<script" not in (tmp_path / "out" / "flux.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "summary.md").read_text(encoding="utf-8").startswith("# Information flux\n")
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(arguments) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_mistakes_are_one_line(tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    start = ["analyze", "flux", "--checkpoint", str(tiny_models["llama"]), "--output", str(tmp_path / "out")]
    empty, long = tmp_path / "empty.txt", tmp_path / "long.txt"
    empty.write_text("", encoding="utf-8")
    long.write_text("word " * 2000, encoding="utf-8")
    for more, says in (
        (["--compare", str(tiny_models["qwen2"])], "another vocabulary"),
        (["--prompts", str(empty)], "empty"),
        (["--prompts", str(long)], "shorten the prompt"),
        (["--prompts", str(tmp_path / "none.txt")], "cannot be read"),
        (["--template", "chat"], "chat template"),
    ):
        assert main([*start, *more, "--quiet"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert says in error
    assert not (tmp_path / "out").exists()
