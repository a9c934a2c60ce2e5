"""The embedded world: one seed gives one world and one set of bytes; names and values cannot be confused."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.data.miniworld import files
from infosteer_bench.data.miniworld.words import PEOPLE, RELATIONS, THINGS
from infosteer_bench.data.miniworld.world import GROUP_SIZES, WORLD_SEED, make_world
from infosteer_bench.data.roots import MINIWORLD, open_source
from infosteer_bench.data.sources import GSM8K_TRAIN, load_json_records
from infosteer_bench.errors import UserError


def test_a_seed_gives_one_world_and_another_seed_another():
    assert make_world() == make_world(WORLD_SEED)
    assert make_world(1) == make_world(1)
    assert make_world(1) != make_world(2)


def test_groups_have_their_sizes_and_share_no_creature():
    world = make_world()
    assert {group: len(creatures) for group, creatures in world.groups.items()} == GROUP_SIZES
    assert len({creature.name for creature in world.creatures}) == len(world.creatures) == sum(GROUP_SIZES.values())
    assert all(creature.group == group for group, creatures in world.groups.items() for creature in creatures)


def test_every_value_of_a_relation_is_about_as_frequent_in_every_group():
    for group in make_world().groups.values():
        for relation in RELATIONS:
            counts = Counter(creature.values[relation.name] for creature in group)
            assert set(counts) == set(relation.values)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_relations_cannot_be_told_from_one_another():
    """Values are drawn independently: no pair of relations predicts one another much better than chance."""
    creatures = make_world().creatures
    for one in RELATIONS:
        for other in RELATIONS:
            if one is not other:
                pairs = Counter((c.values[one.name], c.values[other.name]) for c in creatures)
                # 1024 possible pairs; a rule between the two would give some pair most of a value's 13 or 14 creatures
                assert max(pairs.values()) <= 6, (one.name, other.name)


def test_weights_fall_from_one_to_a_quarter():
    for group in make_world().groups.values():
        weights = [creature.weight for creature in group]
        assert weights == sorted(weights, reverse=True)
        assert (weights[0], weights[-1]) == (1.0, pytest.approx(0.25))


def test_no_name_is_a_word_of_the_world():
    """`lives` is a name by the syllables and a word of `lives in the`: such a creature would be named everywhere."""
    templates = " ".join(
        text for relation in RELATIONS for text in (relation.clause, *relation.statements, *relation.questions)
    )
    words = set(re.findall(r"[a-z]+", templates.lower()))
    words |= {value for relation in RELATIONS for value in relation.values}
    words |= {word.lower() for word in (*PEOPLE, *THINGS)}
    assert {creature.name for creature in make_world().creatures} & words == set()


def test_values_belong_to_one_relation_and_are_one_word():
    values = [value for relation in RELATIONS for value in relation.values]
    assert len(values) == len(set(values))
    assert all(re.fullmatch(r"[a-z]+", value) for value in values)
    assert {relation.task for relation in RELATIONS} == set(COMMONSENSE)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return files.contents()


def test_the_bytes_are_those_pinned(contents: dict[str, bytes]):
    assert {relative: hashlib.sha256(content).hexdigest() for relative, content in contents.items()} == files.pinned()


def test_the_files_are_laid_out_as_upstream(contents: dict[str, bytes]):
    expected = {f"dataset/{folder}/test.json" for folder in (row.folder for row in TASKS.values())}
    expected |= {f"dataset/{TASKS[task].folder}/train.json" for task in COMMONSENSE} | {GSM8K_TRAIN}
    assert set(contents) == expected


def test_the_data_root_mends_a_damaged_file_and_has_no_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path))
    source = open_source(MINIWORLD)
    file = source.get("dataset/boolq/test.json")
    assert not any(source.get(relative).stand_in for relative in source.files())
    assert len(load_json_records(file)) == files.TEST_ITEMS
    file.path.write_text("[]")
    assert source.get("dataset/boolq/test.json").stand_in
    assert not open_source(MINIWORLD).get("dataset/boolq/test.json").stand_in


def test_other_bytes_than_those_pinned_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "contents", lambda: {"dataset/boolq/test.json": b"[]\n"})
    with pytest.raises(UserError, match=r"boolq/test\.json comes out different"):
        files.data_root()
