"""`analyze shift`: regions of the base model's percentiles after training, over seeds; the figure; bad input."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import cast

import pytest
import torch

from infosteer_bench.analysis.checkpoints import Checkpoint, chosen_layers, find_checkpoint
from infosteer_bench.analysis.reading import batches
from infosteer_bench.analysis.shift import COUNTS, SHARES, Shift, labels, references_of, summarize
from infosteer_bench.analysis.shift_figure import draw
from infosteer_bench.cli import main
from infosteer_bench.data.mixes import MixRow
from infosteer_bench.data.roots import open_source
from infosteer_bench.data.slices import development_slice, in_turn
from infosteer_bench.errors import UserError
from infosteer_bench.grid import PromptConfig
from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import ffn_layers
from infosteer_bench.models.load import ResolvedModel, load_model, load_tokenizer
from infosteer_bench.records import CheckpointRecord
from tests.tiny import build_data_root, build_tiny
from tests.training import FAST, train

LONGER = FAST.model_copy(update={"epochs": 5, "learning_rate": 3e-3, "entropy_every": None})
ARMS = {
    "sft": ("sft", {}),
    "intervention": ("infosteer-intervention", {"fraction": 0.2, "alpha": 2.0}),
    "rewarded": ("infosteer-regularization", {"lambda": 0.3}),
    "penalised": ("infosteer-regularization", {"lambda": -0.3}),
}
SEEDS = {label: range(1 if label == "intervention" else 3) for label in ARMS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("shift") / "data", n_train=150)


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory) -> list[str]:
    """LABEL=FOLDER of three seeds of plain fine-tuning and of the regularization, one of the intervention."""
    root, found = tmp_path_factory.mktemp("trained"), []
    for label, (method, settings) in ARMS.items():
        for seed in SEEDS[label]:
            folder = root / label / str(seed)
            train(tiny_models["llama"], folder, METHODS.get(method).configure(settings), LONGER, seed)
            found.append(f"{label}={folder / 'weights'}")
    return found


@pytest.fixture(scope="module")
def shifted(tiny_models, trained, data, tmp_path_factory) -> Path:
    """What the command wrote."""
    output = tmp_path_factory.mktemp("out") / "shift"
    arguments = ["--base", str(tiny_models["llama"]), "--checkpoints", *trained, "--data-root", str(data)]
    assert main(["analyze", "shift", *arguments, "--tokens", "600", "--output", str(output), "--quiet"]) == 0
    return output


def rows_of(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "shift.csv").open() as lines:
        return {(row["label"], row["layer"], row["quantity"]): row for row in csv.DictReader(lines)}


def test_entropy_follows_lambda_with_intervals_over_seeds(shifted):
    rows = rows_of(shifted)
    above, below = (rows[label, "all", "entropy_nats"] for label in ("rewarded", "penalised"))
    assert above["n"] == below["n"] == "3"
    assert 0 < float(above["vs_sft_low"]) < float(above["vs_sft"])
    assert float(below["vs_sft"]) < float(below["vs_sft_high"]) < 0
    for quantity in ("effective_memories", "knowledge_entropy_nats"):
        assert (
            float(rows["rewarded", "all", quantity]["vs_sft"]) > 0 > float(rows["penalised", "all", quantity]["vs_sft"])
        )
    assert rows["sft", "all", "entropy_nats"]["vs_sft"] == ""
    assert rows["base", "all", "entropy_nats"]["std"] == "", "one checkpoint has no spread"


def test_base_has_its_own_quarters_and_all_coefficients_are_counted(shifted):
    rows, found = rows_of(shifted), json.loads((shifted / "shift.json").read_text())
    tokens = found["text"]["tokens"]
    assert 500 < tokens <= 600
    for layer, layers in (("all", 2), ("0", 1), ("1", 1)):
        shares = [float(rows["base", layer, f"share_{region}"]["mean"]) for region in ("0-25", "25-75", "75-100")]
        assert shares == pytest.approx([25, 50, 25], abs=0.1)
        for label in ("base", *ARMS):
            counts = [float(rows[label, layer, f"count_{region}"]["mean"]) for region in ("0-25", "25-75", "75-100")]
            assert sum(counts) == pytest.approx(tokens * 160 * layers)
    assert [entry["label"] for entry in found["checkpoints"]] == [label for label in ARMS for _ in SEEDS[label]]


@torch.no_grad()
def test_counts_are_those_of_plain_sorting(shifted, tiny_models, trained, data):
    """By numbers held in memory and exact percentiles, against the streamed ones."""
    source, tokenizer = open_source(data), load_tokenizer(tiny_models["llama"])
    names = json.loads((shifted / "shift.json").read_text())["text"]["sources"]
    text = development_slice(names, source, prompt=PromptConfig(), tokenizer=tokenizer, tokens=600)

    def magnitudes(folder: Path) -> torch.Tensor:
        model, found = load_model(folder, dtype="float32"), []
        ffn_layers(model)[1].register_forward_pre_hook(lambda _, args: found.append(args[0].abs().flatten()))
        for row in text.rows:
            model(torch.tensor([row]), use_cache=False)
        return torch.cat(found)

    base = magnitudes(tiny_models["llama"])
    low, high = (base.sort().values[int(share * len(base))] for share in (0.25, 0.75))
    values = json.loads((shifted / "shift.json").read_text())
    assert values["base_magnitudes"]["1"] == pytest.approx([float(low), float(high)], rel=0.005)
    tuned = magnitudes(Path(trained[0].partition("=")[2]))
    found = values["values"]["sft"]["0"]["1"]
    assert found["share_0-25"] == pytest.approx(100 * float((tuned < low).double().mean()), abs=0.1)
    assert found["share_75-100"] == pytest.approx(100 * float((tuned >= high).double().mean()), abs=0.1)


def test_the_figure_shows_everybody(shifted):
    svg = (shifted / "figure4.svg").read_text()
    texts = {element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")}
    assert {"base", "sft, 3 seeds", "intervention", "rewarded, 3 seeds", "penalised, 3 seeds"} <= texts
    assert (shifted / "figure4.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_says_what_was_read_and_found_and_files_are_the_same_again(
    tiny_models, trained, data, tmp_path, capsys
):
    few = [*trained[:2], *trained[4:6]]  # two seeds of sft and of the rewarded
    arguments = ["--base", str(tiny_models["llama"]), "--checkpoints", *few, "--data-root", str(data), "--layers", "1"]
    for name in ("one", "two"):
        command = ["analyze", "shift", *arguments, "--tokens", "200", "--output", str(tmp_path / name)]
        assert main(command) == 0
    printed = capsys.readouterr()
    assert "held-out rows of" in printed.out
    assert "rewarded - sft" in printed.out
    assert "reading rewarded seed 1 (4 of 4)" in printed.err
    assert {layer for _, layer, _ in rows_of(tmp_path / "one")} == {"all", "1"}
    for name in ("figure4.svg", "shift.csv", "shift.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_differences_pair_seeds():
    """sft at 1, 2, 4, a method always 0.5 above it: the difference is certain, however far seeds lie apart."""
    sft = {seed: {"all": {"entropy_nats": value}} for seed, value in ((0, 1.0), (1, 2.0), (2, 4.0))}
    other = {seed: {"all": {"entropy_nats": value}} for seed, value in ((1, 2.5), (2, 4.5), (5, 9.0))}
    found = {row.label: row for row in summarize({"base": {0: sft[0]}, "sft": sft, "other": other})}
    assert (found["other"].vs_sft, found["other"].vs_sft_low, found["other"].vs_sft_high) == (0.5, 0.5, 0.5)
    assert found["other"].n == 3
    assert found["base"].vs_sft is None
    assert found["sft"].low == pytest.approx(7 / 3 - 4.302653 * 1.527525 / 3**0.5, rel=1e-5)


def checkpoint(label: str, mix: str | None = None) -> Checkpoint:
    """One of a run, of seed 0, where there is a mix; else a plain folder."""
    record = None
    if mix:
        record = CheckpointRecord(
            key=f"{label}-{mix}", status="success", identity={}, model="m", family="llama", method="sft", arm="",
            mix=mix, seed=0,
        )  # fmt: skip
    return Checkpoint(label, cast(ResolvedModel, None), record)


def test_a_plain_folder_is_no_further_mix():
    assert labels([checkpoint("sft", "gsm8k"), checkpoint("mine")]) == ["sft", "mine"]
    several = [checkpoint("sft", "gsm8k"), checkpoint("sft", "commonsense"), checkpoint("mine")]
    assert labels(several) == ["sft on gsm8k", "sft on commonsense", "mine"]


@pytest.mark.parametrize(
    ("given", "against"),
    [
        ([("sft", "gsm8k"), ("x", "gsm8k"), ("mine", None)], {"x": "sft", "mine": "sft"}),
        ([("sft", None), ("best on math", None)], {"best on math": "sft"}),
        (
            [("sft", "gsm8k"), ("sft", "boolq"), ("a on b", "boolq"), ("mine on gsm8k", None)],
            {"a on b on boolq": "sft on boolq"},
        ),
    ],
)
def test_sft_of_the_same_mix_is_told_by_records_not_by_labels(given, against):
    """The reading of a checkpoint is a power of two by its place: a difference tells which two it is of."""
    checkpoints = [checkpoint(*one) for one in given]
    values = {name: {0: {"all": {"x": 2.0**place}}} for place, name in enumerate(labels(checkpoints))}
    rows = summarize({"base": {0: {"all": {"x": 0.0}}}, **values}, references_of(checkpoints))
    differences = {row.label: row.vs_sft for row in rows if row.vs_sft is not None}
    assert differences == {
        label: values[label][0]["all"]["x"] - values[sft][0]["all"]["x"] for label, sft in against.items()
    }


def test_a_label_may_hold_a_dollar_and_the_users_settings_do_not_count(tmp_path):
    import matplotlib

    values = {layer: dict.fromkeys((*SHARES, *COUNTS), 1.0) for layer in ("all", "0")}
    seeds = {"base": {0: values}, "costs $x_1$ and $\\frac": {0: values}}
    found = Shift({"all": (0.0, 1.0), "0": (0.0, 1.0)}, seeds, summarize(seeds))
    svg, _ = (path.read_bytes() for path in draw(found, tmp_path / "plain"))
    assert b"costs $x_1$ and $\\frac" in svg
    with matplotlib.rc_context({"axes.facecolor": "black", "text.parse_math": True}):
        assert draw(found, tmp_path / "own")[0].read_bytes() == svg


def test_the_slice_takes_sources_in_turn_and_keeps_to_its_budget(tiny_models, data):
    tokenizer, source = load_tokenizer(tiny_models["llama"]), open_source(data)
    options = {"prompt": PromptConfig(), "tokenizer": tokenizer}
    text = development_slice(["gsm8k", "boolq"], source, tokens=400, **options)
    assert text == development_slice(["gsm8k", "boolq"], source, tokens=400, **options)
    assert text.sources == ("gsm8k", "boolq") or text.sources == ("boolq", "gsm8k")
    assert 300 < text.tokens <= 400
    longer = development_slice(["gsm8k", "boolq"], source, tokens=800, **options)
    assert longer.rows[:2] == text.rows[:2]
    assert longer.facts()["digest"] != text.facts()["digest"]
    rows = [MixRow(str(place), "", source) for place, source in enumerate("aabacb")]
    assert [row.prompt for row in in_turn(rows)] == ["0", "2", "4", "1", "5", "3"]


def test_batches_hold_every_row_once():
    rows = [[1] * n for n in (3, 700, 5, 5, 600, 2000)]
    found = list(batches(rows))
    assert sorted(int(length) for _, mask in found for length in mask.sum(1)) == [3, 5, 5, 600, 700, 2000]
    assert all(mask.numel() <= 1024 or len(mask) == 1 for _, mask in found)
    assert all(bool((ids[mask] == 1).all()) and not ids[~mask].any() for ids, mask in found)


def test_checkpoints_of_a_run_are_found_by_key_and_named_by_their_record(tiny_models, tmp_path):
    run = tmp_path / "runs" / "toy"
    shutil.copytree(tiny_models["llama"], run / "weights" / "toy--sft--s1--abc")
    for key, seed in (("toy--sft--s1--abc", 1), ("toy--sft--s2--abd", 2)):
        CheckpointRecord(
            key=key, status="success", identity={}, model="toy", family="llama", method="sft", arm="x=1", mix="gsm8k",
            seed=seed,
        ).save(run)  # fmt: skip
    for runs in (run, run.parent):
        found = find_checkpoint("toy--sft--s1", runs=runs, model_root=None)
        assert (found.label, found.seed, found.mix) == ("sft (x=1)", 1, "gsm8k")
    named = find_checkpoint("mine=toy--sft--s1--abc", runs=run, model_root=None)
    assert (named.label, named.seed) == ("mine", 1)
    with pytest.raises(UserError, match="were not kept"):
        find_checkpoint("toy--sft--s2--abd", runs=run, model_root=None)
    with pytest.raises(UserError, match="2 checkpoints"):
        find_checkpoint("toy--sft", runs=run, model_root=None)
    plain = find_checkpoint(str(tiny_models["llama"]), runs=run, model_root=None)
    assert (plain.label, plain.seed, plain.record) == ("tiny-llama", None, None)


def test_layers_by_name_and_index():
    assert chosen_layers("0, 3", 4) == [0, 3]
    assert chosen_layers("early+late", 6) == [0, 1, 4, 5]


BAD = {
    "another vocabulary": (["--checkpoints", "OTHER"], "another vocabulary"),
    "other layers": (["--checkpoints", "DEEP"], "has 3 layers"),
    "layer outside": (["--layers", "0,2"], "--layers 0,2"),
    "layer word": (["--layers", "upper"], "--layers upper"),
    "empty layer list": (["--layers", ""], "--layers"),
    "empty slice": (["--tokens", "2"], "the slice would be empty"),
    "no tokens": (["--tokens", "0"], "'0' is not a whole number"),
    "nothing held out": (["--data-root", "TESTS"], "none of its sources"),
    "unknown source": (["--sources", "bolq"], "did you mean 'boolq'"),
    "folder without model": (["--checkpoints", "EMPTY"], "config.json"),
    "folder absent": (["--checkpoints", "./absent"], "does not exist"),
    "base without model": (["--base", "EMPTY"], "config.json"),
    "unknown id": (["--base", "mini-lama"], "did you mean 'mini-llama'"),
    "called base": (["--checkpoints", "base=MODEL"], "is called 'base'"),
    "twice the same seed": (["--checkpoints", "FIRST", "SECOND"], "two checkpoints are 'sft' of seed 1"),
    "other width": (["--checkpoints", "WIDE"], "another FFN width"),
    "broken weights": (["--checkpoints", "BROKEN"], "layer 1"),
    "output is a file": (["--output", "FILE"], "is a file"),
    "no base": (["--base"], "--base"),
}


@pytest.fixture(scope="module")
def world(tiny_models, data, tmp_path_factory) -> dict[str, str]:
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("bad")
    names = {"MODEL": tiny_models["llama"], "EMPTY": root / "empty", "FILE": root / "file", "TESTS": root / "tests"}
    names["EMPTY"].mkdir()
    names["FILE"].write_text("x")
    shutil.copytree(data / "dataset" / "boolq", names["TESTS"] / "dataset" / "boolq")
    (names["TESTS"] / "dataset" / "boolq" / "train.json").unlink()
    names["OTHER"] = build_tiny("llama", root / "other", vocab_text="quite another text\n" * 9)
    for name in ("DEEP", "BROKEN"):
        names[name] = root / name.lower()
        shutil.copytree(tiny_models["llama"], names[name])
    config = json.loads((names["DEEP"] / "config.json").read_text())
    (names["DEEP"] / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    weights = load_file(names["BROKEN"] / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0] = float("nan")
    save_file(weights, names["BROKEN"] / "model.safetensors", metadata={"format": "pt"})
    for name in ("FIRST", "SECOND"):
        names[name] = root / "run" / "weights" / name.lower()
        shutil.copytree(tiny_models["llama"], names[name])
        CheckpointRecord(
            key=name.lower(), status="success", identity={}, model="m", family="llama", method="sft", arm="", mix="x",
            seed=1,
        ).save(root / "run")  # fmt: skip
    names["WIDE"] = root / "wide"
    shutil.copytree(tiny_models["llama"], names["WIDE"])
    wide = LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_models["llama"], intermediate_size=96))
    wide.save_pretrained(names["WIDE"])
    return {name: str(path) for name, path in names.items()}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, world, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given, message = BAD[case]
    for option, default in (("--base", "MODEL"), ("--checkpoints", "MODEL"), ("--data-root", str(data))):
        if option not in given:
            given = [*given, option, default]
    for name, path in world.items():
        given = [part.replace(name, path) if part.split("=")[-1] == name else part for part in given]
    assert main(["analyze", "shift", *given, "--quiet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("infosteer-bench: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
