"""Information surrogates: equal to a direct softmax, whatever the chunks, and the command that lists them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from tiny import FAMILY_NAMES

from infosteer_bench.analysis.surrogate import (
    LayerSurrogates,
    TokenTexts,
    closest,
    concept_ids,
    specialised,
    surrogates_of,
)
from infosteer_bench.analysis.surrogate_figure import draw
from infosteer_bench.cli import main
from infosteer_bench.errors import UserError
from infosteer_bench.memory.surrogate import surrogates
from infosteer_bench.models.families import ffn_layers
from infosteer_bench.models.load import load_model, load_tokenizer


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_direct_softmax_gives_the_same(tiny_models: dict[str, Path], family: str):
    model = load_model(tiny_models[family], dtype="float32")
    found = surrogates_of(model, 1, top_k=4, concept=[8, 5, 8]).found
    memory_vectors = ffn_layers(model)[1].weight.double().T  # v_i is column i of down_proj: (F, D)
    assert memory_vectors.shape == (160, 64)
    p = torch.softmax(memory_vectors @ model.lm_head.weight.double().T, dim=-1)  # (F, V)
    entropy = -(p * p.log()).sum(-1)
    assert found.entropy.numpy() == pytest.approx(entropy.detach().numpy(), rel=1e-5)
    specificity = 1 - entropy / math.log(p.shape[1])
    assert found.specificity.numpy() == pytest.approx(specificity.detach().numpy(), abs=1e-6)
    top, ids = p.topk(4)
    assert found.top_probabilities.numpy() == pytest.approx(top.detach().numpy(), rel=1e-4)
    assert (found.top_ids == ids).float().mean() > 0.99
    about = (p[:, 5].log() + p[:, 8].log()) / 2
    assert found.concept.numpy() == pytest.approx(about.detach().numpy(), rel=1e-5)


def test_chunks_do_not_change_numbers():
    generator = torch.Generator().manual_seed(0)
    values, decode = torch.randn(8, 50, generator=generator), torch.randn(90, 8, generator=generator)
    whole = surrogates(values, decode, top_k=3, concept=[1], chunk=50)
    for chunk in (1, 7, 49, None):
        part = surrogates(values, decode, top_k=3, concept=[1], chunk=chunk)
        assert part.entropy.numpy() == pytest.approx(whole.entropy.numpy(), rel=1e-5)
        assert part.concept.numpy() == pytest.approx(whole.concept.numpy(), rel=1e-5)
        assert torch.equal(part.top_ids, whole.top_ids)


def test_known_memories():
    decode = torch.eye(6)
    values = torch.zeros(6, 3)
    values[2, 1] = 200.0  # one token only
    values[:2, 2] = 60.0  # two of six alike
    found = surrogates(values, decode, top_k=2)
    assert found.entropy.tolist() == pytest.approx([math.log(6), 0.0, math.log(2)], abs=1e-6)
    assert found.specificity.tolist() == pytest.approx([0.0, 1.0, 1 - math.log(2) / math.log(6)], abs=1e-6)
    assert found.top_ids[1, 0] == 2
    assert set(found.top_ids[2].tolist()) == {0, 1}
    assert found.concept is None


def test_bfloat16_weights_are_computed_in_float32():
    generator = torch.Generator().manual_seed(1)
    values, decode = (torch.randn(shape, generator=generator).bfloat16() for shape in ((8, 20), (40, 8)))
    found = surrogates(values, decode, top_k=1)
    assert found.entropy.dtype == torch.float32
    assert torch.equal(found.entropy, surrogates(values.float(), decode.float(), top_k=1).entropy)


def layer(number: int, specificity: list[float], concept: list[float]) -> LayerSurrogates:
    values = torch.zeros(4, len(specificity))
    found = surrogates(values, torch.eye(4), top_k=1, concept=[0])
    changed = {"specificity": torch.tensor(specificity), "concept": torch.tensor(concept)}
    return LayerSurrogates(number, type(found)(**{**vars(found), **changed}))


def test_memories_are_ranked_over_all_layers():
    layers = [layer(2, [0.1, 0.9], [-3.0, -1.0]), layer(5, [0.5, 0.9, 0.2], [-0.5, -4.0, -2.0])]
    assert [(m.layer, m.memory) for m in specialised(layers, 4)] == [(2, 1), (5, 1), (5, 0), (5, 2)]
    near = closest(layers, 2)
    assert [(m.layer, m.memory) for m in near] == [(5, 0), (2, 1)]
    assert near[0].above_even == pytest.approx(-0.5 + math.log(4))
    assert len(specialised(layers, 99)) == 5


def test_a_concepts_tokens_are_those_inside_a_sentence(tiny_models: dict[str, Path]):
    tokenizer = load_tokenizer(tiny_models["llama"])
    ids = concept_ids(tokenizer, " the answer ")
    assert tokenizer.decode(ids) == " the answer"
    assert tokenizer.bos_token_id not in ids
    with pytest.raises(UserError, match="empty"):
        concept_ids(tokenizer, "  ")


def test_a_concept_with_an_unknown_token_is_refused():
    from infosteer_bench.models.catalog import CATALOG

    folder = CATALOG["mini-llama"].folder
    assert folder is not None
    with pytest.raises(UserError, match="'é'"):
        concept_ids(load_tokenizer(folder), "é")


def test_a_row_beyond_the_vocabulary_has_its_number_as_text(tiny_models: dict[str, Path]):
    tokenizer = load_tokenizer(tiny_models["llama"])
    texts = TokenTexts(tokenizer)
    assert texts(len(tokenizer) + 5) == f"[{len(tokenizer) + 5}]"
    assert texts(tokenizer(" the", add_special_tokens=False)["input_ids"][0]) == " the"


def test_the_figure_is_the_same_twice(tmp_path: Path):
    layers = [layer(n, [0.1 * n, 0.001, 0.9], [0.0, 0.0, 0.0]) for n in range(8)]
    first, second = (draw(layers, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second
    assert first.decode().count(">layer ") == 8


def test_the_figure_heeds_no_settings_of_the_user(tmp_path: Path):
    import matplotlib

    plain = draw([layer(0, [0.1, 0.9], [0.0, 0.0])], tmp_path / "plain").read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linewidth": 9}):
        assert draw([layer(0, [0.1, 0.9], [0.0, 0.0])], tmp_path / "own").read_bytes() == plain
        assert matplotlib.rcParams["axes.facecolor"] == "black"


def test_the_command(tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["analyze", "surrogate", "--checkpoint", str(tiny_models["gemma2"]), "--concept", "the answer"]
    assert main([*arguments, "--top-k", "3", "--show", "4", "--output", str(tmp_path), "--quiet"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    assert "closest to 'the answer'" in out.out
    rows = list(csv.DictReader((tmp_path / "memories.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 160
    found = json.loads((tmp_path / "surrogate.json").read_text(encoding="utf-8"))
    assert len(found["most_specialised"]) == len(found["closest_to_concept"]) == 4
    best = max(rows, key=lambda row: float(row["specificity"]))
    assert found["most_specialised"][0]["specificity"] == pytest.approx(float(best["specificity"]))
    nearest = max(rows, key=lambda row: float(row["concept_nats_above_even"]))
    first = found["closest_to_concept"][0]
    assert (first["layer"], first["memory"]) == (int(nearest["layer"]), int(nearest["memory"]))
    assert len(json.loads(rows[0]["top_tokens"])) == 3
    assert (tmp_path / "specificity.svg").is_file()


def test_chosen_layers_only(tiny_models: dict[str, Path], tmp_path: Path):
    arguments = ["analyze", "surrogate", "--checkpoint", str(tiny_models["qwen3"]), "--layers", "1"]
    assert main([*arguments, "--output", str(tmp_path), "--quiet"]) == 0
    rows = list(csv.DictReader((tmp_path / "memories.csv").open(encoding="utf-8")))
    assert {row["layer"] for row in rows} == {"1"}
    assert "concept_nats_above_even" not in rows[0]
    assert json.loads((tmp_path / "surrogate.json").read_text(encoding="utf-8"))["closest_to_concept"] == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--layers", "0,7"], "0..1"),
        (["--layers", "none"], "early"),
        (["--top-k", "100000"], "at most the vocabulary"),
        (["--concept", " "], "--concept is empty"),
    ],
)
def test_mistakes_are_one_line(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
):
    output = tmp_path / "out"
    start = ["analyze", "surrogate", "--checkpoint", str(tiny_models["llama"]), "--output", str(output), "--quiet"]
    assert main([*start, *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not output.exists()
