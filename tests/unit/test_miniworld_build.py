"""A reduced build: a world of ten creatures is learned in seconds, a killed build ends as one that was left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infosteer_bench.data.miniworld.world import World, make_world
from infosteer_bench.errors import UserError
from infosteer_bench.models.load import load_model, load_tokenizer, weight_digest
from infosteer_dev.miniworld.build import Built, Recipe, Stage, build_family
from infosteer_dev.miniworld.measure import answers, cloze, make_corpus

FAMILY = "llama"
SIZES = {"exam": 4, "mix": 3, "asked": 3}
TELL = {"facts": 0.5, "profile": 0.5}
RECIPE = Recipe(
    rows=8,
    width=48,
    learning_rate=4e-3,
    warmup=15,
    stages=(Stage("repeat", 10, {"repeat": 1.0}), Stage("tell", 150, TELL, told=True, decay=70)),
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(5, sizes=SIZES)


@pytest.fixture(scope="module")
def built(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    """A model and its twin."""
    output = tmp_path_factory.mktemp("miniworld")
    return build_family(FAMILY, output, recipe=RECIPE, world=world, report=lambda line: None)


def test_the_loss_falls_and_the_facts_are_known(built: list[Built]):
    record = built[0].record
    losses = [line["loss"] for line in record["log"] if line["stage"] == "tell"]
    assert losses[-1] < 0.7 * losses[0]
    assert all(share > 90 for share in record["measured"]["cloze"].values()), record["measured"]["cloze"]


def test_the_twin_knows_all_but_the_asked_facts(built: list[Built]):
    known = built[1].record["measured"]["cloze"]
    assert known["exam"] > 90
    assert known["mix"] > 90
    # 24 questions, each with seven values known of others; chance is about one in seven
    assert known["asked"] <= 100 * (1 / 7 + 3.5 * (1 / 7 * 6 / 7 / 24) ** 0.5)


def test_the_record_says_what_was_built(built: list[Built], world: World):
    model, twin = built
    assert [item.path.name for item in built] == [f"mini-{FAMILY}", f"mini-{FAMILY}-twin"]
    assert (model.record["withheld"], twin.record["withheld"]) == (None, "asked")
    for item in built:
        assert item.record["world_sizes"] == SIZES
        assert item.record["tokens"] == 160 * 8 * 48
        assert item.record["weight_digest"] == weight_digest(item.path)
        assert item.record["provenance"]["versions"]["torch"]
    assert model.record["weight_digest"] != twin.record["weight_digest"]
    assert not any((model.path.parent / ".state").rglob("*.pt"))


def test_what_is_finished_is_not_built_again(built: list[Built], world: World):
    heard: list[str] = []
    again = build_family(FAMILY, built[0].path.parent, recipe=RECIPE, world=world, report=heard.append)
    assert again == built
    assert heard == []


def test_a_finished_build_of_another_recipe_is_refused(built: list[Built], world: World):
    other = replace(RECIPE, seed=1)
    with pytest.raises(UserError, match="another recipe"):
        build_family(FAMILY, built[0].path.parent, recipe=other, world=world, report=lambda line: None)


def test_the_folder_loads_here_and_in_transformers(built: list[Built], world: World):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = built[0].path
    ours, tokenizer = load_model(path, dtype="float32"), load_tokenizer(path)
    theirs: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    creature = world.groups["asked"][0]
    text = f" The {creature.name} eats"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert AutoTokenizer.from_pretrained(path)(text)["input_ids"] == ids[0].tolist()
    assert ids[0, 0] == tokenizer.bos_token_id
    with torch.inference_mode():
        logits = ours(input_ids=ids).logits
        assert torch.equal(logits, theirs(input_ids=ids).logits)
    assert tokenizer.decode(logits[0, -1].argmax()) == f" {creature.values['food']}"


def test_the_measure_can_fail(built: list[Built], world: World):
    """Cloze accuracy is that of the facts: of another world's facts the model knows nothing."""
    other = make_world(6, sizes=SIZES)
    # the same names, other values
    groups = {
        group: tuple(
            type(mine)(mine.name, group, theirs.values, mine.weight)
            for mine, theirs in zip(creatures, other.groups[group], strict=True)
        )
        for group, creatures in world.groups.items()
    }
    model = load_model(built[0].path, dtype="float32")
    corpus = make_corpus(world, FAMILY, width=48, withheld=None)
    ids, labels = cloze(corpus, World(world.seed, groups), "exam")
    with torch.inference_mode():
        _, guesses, truth = answers(model, torch.from_numpy(ids), torch.from_numpy(labels))
    assert (guesses == truth).float().mean() < 0.2


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_killed_build_ends_with_the_same_weights(
    killed_at: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from infosteer_dev.miniworld import build

    monkeypatch.setattr(build._Run, "SAVE_EVERY", 4)
    monkeypatch.setattr(build, "measure", lambda *args: {})
    recipe = Recipe(
        rows=2,
        width=32,
        warmup=4,
        stages=(Stage("repeat", 6, {"repeat": 1.0}), Stage("tell", 10, TELL, told=True, decay=4)),
    )
    straight = build_family("qwen2", tmp_path / "straight", recipe=recipe, world=world, report=lambda line: None)
    saves: list[Path] = []
    save = build._Run._save

    def save_and_die(self: Any, *args: Any) -> None:
        save(self, *args)
        saves.append(self.state)
        if len(saves) == 3 * killed_at:  # once in the first stage's end or the model's, once in the twin's
            raise KeyboardInterrupt

    monkeypatch.setattr(build._Run, "_save", save_and_die)
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        build_family("qwen2", killed, recipe=recipe, world=world, report=lambda line: None)
    assert saves[-1].is_file()
    heard: list[str] = []
    resumed = build_family("qwen2", killed, recipe=recipe, world=world, report=heard.append)
    assert 0 < len(heard) < 8  # of 2 + 3 + 3 lines, those that were left
    for one, other in zip(straight, resumed, strict=True):
        weights = load_file(one.path / "model.safetensors")
        again = load_file(other.path / "model.safetensors")
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert one.record["weight_digest"] == other.record["weight_digest"]
        assert one.record["log"] == other.record["log"]


def test_the_seed_decides_the_weights(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from infosteer_dev.miniworld import build

    monkeypatch.setattr(build, "measure", lambda *args: {})
    digests = set()
    for seed in (0, 1):
        recipe = Recipe(seed=seed, rows=2, width=32, stages=(Stage("tell", 2, TELL, told=True),))
        out = build_family(
            "gemma2", tmp_path / str(seed), recipe=recipe, world=world, twin=False, report=lambda line: None
        )
        assert [item.path.name for item in out] == ["mini-gemma2"]
        digests.add(out[0].record["weight_digest"])
    assert len(digests) == 2


def test_a_stage_ends_at_its_goal_and_the_twin_takes_as_many_steps(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And layers are put below, and the lower ones taught, from the first stage that tells."""
    from infosteer_dev.miniworld import build

    grown: list[int] = []
    taught: list[bool] = []
    grow, losses = build.put_layers_below, build.losses_of
    shares = iter([20.0, 60.0, 90.0, 91.0])
    monkeypatch.setattr(build, "measure", lambda *args: {})
    monkeypatch.setattr(build._Run, "SAVE_EVERY", 2)
    monkeypatch.setattr(build, "right_percent", lambda *args: next(shares))
    monkeypatch.setattr(
        build, "put_layers_below", lambda top, *args, **named: (grown.append(1), grow(top, *args, **named))[1]
    )
    monkeypatch.setattr(
        build,
        "losses_of",
        lambda *args, known: (taught.append(known is not None), losses(*args, known=known))[1],
    )
    stages = (
        Stage("bind", 20, {"drill": 1.0}, goal=("drill", 50.0)),
        Stage("tell", 20, TELL, goal=("ask", 90.5), told=True),
    )
    out = build_family(
        "llama", tmp_path, recipe=Recipe(rows=2, width=32, stages=stages), world=world, report=lambda line: None
    )
    ended = [{line["stage"]: line["step"] for line in item.record["log"]} for item in out]
    assert ended == [{"bind": 4, "tell": 4}, {"bind": 4, "tell-twin": 4}]
    assert len(grown) == 2
    assert taught == [False] * 4 + [True] * 8
    assert next(shares, None) is None  # the twin looks at no goal
