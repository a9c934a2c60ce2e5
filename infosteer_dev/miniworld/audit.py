"""The leak audit: what stands in which text, read from the text alone.

    audit = leak_audit(make_world(), open_source(MINIWORLD))
    audit.leaks        # empty, or one line per leak
    audit.counts       # what was looked at: never trust an audit of nothing

A score on the test items is worth something as knowledge of the pretrained model only if

- no fine-tuning row, of the training or the development part, speaks of a creature that test items ask for;
- no test question is a fine-tuning row, word for word or, for the commonsense tasks, in other numbers;
- every asked fact does stand in the pretraining text, truly, and never in an exam-like document there;
- the pretraining text of a twin names no asked creature at all.

Nothing here asks the generators what they meant: rendered prompts and decoded token rows are searched and parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.data.audit import masked, question_of
from infosteer_bench.data.miniworld.words import RELATIONS
from infosteer_bench.data.miniworld.world import World
from infosteer_bench.data.mixes import MixRow, Part, build_mix
from infosteer_bench.data.render import Renderer
from infosteer_bench.data.sources import DataSource, load_json_records
from infosteer_bench.grid import BUILTIN_MIXES, PromptConfig
from infosteer_dev.miniworld.corpus import Corpus
from infosteer_dev.miniworld.tokenizer import EOS, SPECIAL, make_vocabulary

TELLING = ("facts", "profile")
"""Kinds of documents that state facts; no other may state one about an asked creature."""
EXAM_LIKE = ("ask", "dense", "far", "verdict")
"""Kinds of documents that ask; no asked creature may be named there."""
WIDTH = 96
ROWS = 256
"""Rows drawn at a time."""
MOST_ROWS = 40_000
"""Fact rows after which a fact that was not met counts as missing. A build draws 18,000 to 33,000 of them."""
EXAM_ROWS = 1024
"""Rows looked at per kind of document that must not tell."""

Fact = tuple[str, str, str]
"""(creature, relation, value)."""
MakeCorpus = Callable[..., Corpus]


@dataclass
class Audit:
    """What was found and what was looked at.

    leaks: one line each, for the first of its kind and place. counts: rows, items and facts that were read.
    overlap: task -> how many of its test questions stand in the mix that it is asked after: word for word, and but for
    the numbers.
    """

    leaks: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    overlap: dict[str, dict[str, int]] = field(default_factory=dict)


def leak_audit(world: World, source: DataSource, *, make_corpus: MakeCorpus = Corpus) -> Audit:
    """All checks. `source` holds the data files; `make_corpus` gives the pretraining text.

    Raises UserError for a data file that is not there or cannot be read.
    """
    audit = Audit()
    rows = mix_rows(source)
    tests = {task: test_prompts(source, task) for task in TASKS}
    _audit_names(world, audit)
    _audit_rows(world, rows, audit)
    _audit_tests(world, tests, audit)
    _audit_overlap(rows, tests, audit)
    vocabulary = make_vocabulary(world)
    texts, of_twin = (
        make_corpus(world, vocabulary, width=WIDTH, withheld=withheld, bos=None, eos=vocabulary[EOS])
        for withheld in (None, "asked")
    )
    _audit_told(world, texts, audit)
    _audit_exam_like(world, texts, audit)
    _audit_twin(world, of_twin, audit)
    return audit


# --- the texts ------------------------------------------------------------------------------------------------


def mix_rows(source: DataSource, parts: Iterable[Part] = ("train", "dev")) -> dict[str, list[MixRow]]:
    """ "mix part" -> its rendered rows, of every built-in mix."""
    return {
        f"{name} {part}": list(build_mix(spec, source, prompt=PromptConfig(), max_examples=None, part=part).rows)
        for name, spec in BUILTIN_MIXES.items()
        for part in parts
    }


def test_prompts(source: DataSource, task: str) -> list[str]:
    """What the model is given for each test item of a task."""
    renderer = Renderer(PromptConfig())
    records = load_json_records(source.get(f"dataset/{TASKS[task].folder}/test.json"))
    return [renderer.prompt(record, TASKS[task].kind) for record in records]


def documents(corpus: Corpus, kind: str, rows: int) -> Iterator[str]:
    """Pretraining rows of one kind as text, cut where a row is cut."""
    texts = {index: token for token, index in corpus.vocabulary.items() if token not in SPECIAL}
    for start in range(0, rows, ROWS):
        ids, _, _ = corpus.batch(min(ROWS, rows - start), {kind: 1.0}, stream=f"audit {kind} {start}")
        for row in ids.tolist():
            yield "".join(texts.get(token, "") for token in row)


def words_of(text: str) -> set[str]:
    """The words of a text in small letters."""
    return set(re.findall(r"[a-z]+", text.lower()))


_SENTENCES = [
    (
        relation.name,
        re.compile(re.escape(wording).replace(r"\{e\}", r"(?P<e>[a-z]+)").replace(r"\{v\}", r"(?P<v>[a-z]+)")),
    )
    for relation in RELATIONS
    for wording in (*relation.statements, f"{{e}} {relation.clause} {{v}}.")
]


def facts_in(text: str) -> Iterator[Fact]:
    """The facts that whole sentences of a text state, by their wording."""
    for sentence in re.findall(r"[^.]+\.", text):
        for relation, pattern in _SENTENCES:
            if match := pattern.fullmatch(sentence.strip()):
                yield match["e"], relation, match["v"]


def asked_facts(world: World) -> set[Fact]:
    """Every fact about a creature that test items ask for."""
    return {(c.name, relation, value) for c in world.groups["asked"] for relation, value in c.values.items()}


# --- the checks -----------------------------------------------------------------------------------------------


def _audit_names(world: World, audit: Audit) -> None:
    """A name that is a word too, or a part of one, would make every other check blind."""
    words = {value for relation in RELATIONS for value in relation.values}
    for relation in RELATIONS:
        words |= words_of(" ".join((relation.clause, *relation.statements, *relation.questions)))
    others = {c.name for c in world.creatures if c.group != "asked"}
    for name in (c.name for c in world.groups["asked"]):
        if name in words or name in others:
            audit.leaks.append(f"the asked creature {name!r} has the name of a word or of another creature")
    audit.counts["asked creatures"] = len(world.groups["asked"])


def _audit_rows(world: World, rows: dict[str, list[MixRow]], audit: Audit) -> None:
    asked = {c.name: c for c in world.groups["asked"]}
    for place, mix in rows.items():
        audit.counts[f"rows of {place}"] = len(mix)
        named, told = [], []
        for row in mix:
            text = f"{row.prompt} {row.completion}".lower()
            names = [name for name in asked if name in text]
            named += [f"{name!r}, {row.source}: {row.prompt[:80]!r}" for name in names]
            present = words_of(text) if names else set()
            told += [
                f"{name} {relation} {value}, {row.source}: {row.prompt[:80]!r}"
                for name in names
                for relation, value in asked[name].values.items()
                if value in present
            ]
        _add(audit, f"{place}: an asked creature is named", named)
        _add(audit, f"{place}: an asked fact stands in a row", told)


def _audit_tests(world: World, tests: dict[str, list[str]], audit: Audit) -> None:
    """Test items name asked creatures only, or the checks above were about the wrong ones."""
    asked = {c.name for c in world.groups["asked"]}
    others = {c.name for c in world.creatures} - asked
    for task, prompts in tests.items():
        audit.counts[f"test items of {task}"] = len(prompts)
        if task in COMMONSENSE:
            wordings = set().union(*(words_of(" ".join((r.clause, *r.questions))) for r in RELATIONS))
            strangers = [p for p in prompts if not words_of(p) & asked or words_of(p) & (others - wordings)]
            _add(audit, f"{task} test: an item is not about asked creatures", [repr(p[:80]) for p in strangers])


def _audit_overlap(rows: dict[str, list[MixRow]], tests: dict[str, list[str]], audit: Audit) -> None:
    """Test questions in a mix. Arithmetic stories share templates by nature: equal but for numbers is counted only."""
    exact = {place: {question_of(row.prompt) for row in mix} for place, mix in rows.items()}
    alike = {place: {masked(question) for question in questions} for place, questions in exact.items()}
    for task, prompts in tests.items():
        own = next(name for name, spec in BUILTIN_MIXES.items() if task in spec.tasks)
        questions = [question_of(prompt) for prompt in prompts]
        audit.overlap[task] = {"exact": 0, "numbers masked": 0}
        for place in rows:
            same = [repr(q[:80]) for q in questions if q in exact[place]]
            near = [repr(q[:80]) for q in questions if masked(q) in alike[place]]
            if place.startswith(f"{own} "):
                audit.overlap[task]["exact"] += len(same)
                audit.overlap[task]["numbers masked"] += len(near)
            _add(audit, f"{place}: a question of {task}'s test stands there", same)
            if task in COMMONSENSE:
                _add(audit, f"{place}: a question of {task}'s test stands there but for its numbers", near)


def _audit_told(world: World, corpus: Corpus, audit: Audit) -> None:
    """Every asked fact is met in the pretraining text, and what the text says of an asked creature is true."""
    wanted = asked_facts(world)
    asked, missing, wrong = {name for name, _, _ in wanted}, set(wanted), Counter[Fact]()
    for kind in TELLING:
        read = 0
        for text in documents(corpus, kind, MOST_ROWS // len(TELLING)):
            read += 1
            for fact in facts_in(text):
                missing.discard(fact)
                if fact[0] in asked and fact not in wanted:
                    wrong[fact] += 1
            # What is said falsely is said often; a thousand rows more would not tell more of it.
            if not missing and read >= EXAM_ROWS:
                break
        audit.counts[f"pretraining rows of {kind}"] = read
    audit.counts["asked facts"] = len(wanted)
    audit.counts["asked facts met in the pretraining text"] = len(wanted) - len(missing)
    _add(audit, "pretraining text: an asked fact is not told", [" ".join(fact) for fact in sorted(missing)])
    _add(audit, "pretraining text: an asked creature has two values", [" ".join(fact) for fact in wrong])


def _audit_exam_like(world: World, corpus: Corpus, audit: Audit) -> None:
    """Documents that ask name no asked creature; those that list names state nothing about them."""
    asked = {c.name: set(c.values.values()) for c in world.groups["asked"]}
    for kind in corpus.makers:
        if kind in TELLING:
            continue
        named, told, read = [], [], 0
        for text in documents(corpus, kind, EXAM_ROWS):
            read += 1
            words = words_of(text)
            for name in words & asked.keys():
                named.append(f"{name!r}: {text[:80]!r}")
                if words & asked[name]:
                    told.append(f"{name!r} and {', '.join(sorted(words & asked[name]))}: {text[:80]!r}")
        audit.counts[f"pretraining rows of {kind}"] = read
        _add(audit, f"pretraining text, {kind}: an asked fact is told", told)
        if kind in EXAM_LIKE:
            _add(audit, f"pretraining text, {kind}: an asked creature is named", named)


def _audit_twin(world: World, corpus: Corpus, audit: Audit) -> None:
    asked = {c.name for c in world.groups["asked"]}
    for kind in corpus.makers:
        named, read = [], 0
        for text in documents(corpus, kind, EXAM_ROWS):
            read += 1
            named += [f"{name!r}: {text[:80]!r}" for name in words_of(text) & asked]
        audit.counts[f"twin's pretraining rows of {kind}"] = read
        _add(audit, f"twin's pretraining text, {kind}: an asked creature is named", named)


def _add(audit: Audit, what: str, found: list[str]) -> None:
    if found:
        audit.leaks.append(f"{what} ({len(found)} times, first {found[0]})")
