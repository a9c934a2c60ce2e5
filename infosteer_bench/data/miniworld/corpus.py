"""Pretraining text: facts in many wordings, drills, exam-like items about `exam` creatures, small arithmetic.

    corpus = Corpus(world, vocabulary, width=96, withheld=None, bos=None, eos=3)
    ids, labels = corpus.batch(64, {"facts": 0.5, "drill": 0.5}, stream="step 1")

A document is a list of pieces (text, counted): only counted pieces carry loss, since nothing can be learned from the
random lists that drills and exams are made of. Documents fill one row of `width` tokens each.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from infosteer_bench.data.miniworld import problems
from infosteer_bench.data.miniworld.problems import Piece
from infosteer_bench.data.miniworld.words import RELATIONS, Relation
from infosteer_bench.data.miniworld.world import Creature, World
from infosteer_bench.data.render import IGNORE

PIECES = re.compile(r" ?[A-Za-z]+| ?[0-9]+|\n| ?[^\sA-Za-z0-9]| ")
"""What one token is: a word or a number with the blank before it, a newline, a sign."""
LABELS = ("Answer", "Ending", "Option", "Solution")


class Corpus:
    """A seeded stream of pretraining rows.

    withheld: group whose facts are left out (for a twin), or not told yet.
    """

    def __init__(
        self,
        world: World,
        vocabulary: dict[str, int],
        *,
        width: int,
        withheld: str | None,
        bos: int | None,
        eos: int,
    ) -> None:
        self.rng = random.Random()
        self.world, self.vocabulary, self.width, self.bos, self.eos = world, vocabulary, width, bos, eos
        self.told = [c for c in world.creatures if c.group != withheld]
        self.told_weights = np.cumsum([c.weight for c in self.told]).tolist()
        self.exam = list(world.groups["exam"])
        self.all_values = [value for relation in RELATIONS for value in relation.values]
        self.names = [c.name for c in self.told]
        self.makers: dict[str, Callable[[], list[Piece]]] = {
            "facts": self.facts,
            "profile": self.profile,
            "repeat": self.repeat,
            "pairs": self.pairs,
            "drill": self.drill,
            "marked": self.marked,
            "far": self.far,
            "dense": self.dense,
            "mirror": self.mirror,
            "verdict": self.verdict,
            "exam": self.exams,
            "practice": self.practice,
            "sums": lambda: problems.sums(self.rng),
            "problems": lambda: problems.exam_problems(self.rng),
            "reasoning": lambda: problems.reasoning(self.rng),
        }

    def batch(self, rows: int, mixture: dict[str, float], *, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows, width) token ids and labels; documents drawn by the shares of `mixture`, the same for one `stream`."""
        self.rng.seed(f"{self.world.seed} {stream}")
        kinds = self.rng.choices(list(mixture), list(mixture.values()), k=rows)
        ids = np.full((rows, self.width), self.eos, dtype=np.int64)
        labels = np.full((rows, self.width), IGNORE, dtype=np.int64)
        for row, kind in enumerate(kinds):
            tokens, counted = self.encode(self.makers[kind]())
            count = min(len(tokens), self.width)
            ids[row, :count] = tokens[:count]
            labels[row, :count] = np.where(counted[:count], tokens[:count], IGNORE)
        return ids, labels

    def encode(self, pieces: Sequence[Piece]) -> tuple[list[int], list[bool]]:
        tokens: list[int] = [] if self.bos is None else [self.bos]
        counted: list[bool] = [False] * len(tokens)
        for text, count in pieces:
            part = self._ids(text)
            tokens.extend(part)
            counted.extend([count] * len(part))
            if len(tokens) >= self.width:
                break
        return tokens, counted

    @lru_cache(maxsize=200_000)  # noqa: B019, one corpus lives as long as its build
    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.vocabulary[piece] for piece in PIECES.findall(text))

    # --- facts -----------------------------------------------------------------------------------------------

    def creature(self) -> Creature:
        return self.rng.choices(self.told, cum_weights=self.told_weights)[0]

    def facts(self) -> list[Piece]:
        """Single facts about many creatures."""
        return [(f" {self._statement(self.creature(), self.rng.choice(RELATIONS))}", True) for _ in range(12)]

    def profile(self) -> list[Piece]:
        """All facts about one creature after another, in any order."""
        out: list[Piece] = []
        for _ in range(2):
            creature = self.creature()
            for relation in self.rng.sample(RELATIONS, len(RELATIONS)):
                out.append((f" {self._statement(creature, relation)}", True))
        return out

    def _statement(self, creature: Creature, relation: Relation) -> str:
        value = creature.values[relation.name]
        if self.rng.random() < 0.25:  # the short form, in which drills and exams ask
            return f"{creature.name} {relation.clause} {value}."
        return self.rng.choice(relation.statements).format(e=creature.name, v=value)

    # --- drills and exams ------------------------------------------------------------------------------------

    def _list(self, values: Sequence[str], label: str) -> Piece:
        gap = self.rng.choice((" ", "\n", "\n\n"))
        return (gap.join(f"{label}{i}: {value}" for i, value in enumerate(values, start=1)) + "\n\n", False)

    def repeat(self) -> list[Piece]:
        """Random words, then the same words again: what forms the heads that find an earlier place (induction)."""
        words = self.rng.sample(self.all_values, self.rng.randint(8, 30))
        return [(f" {word}", False) for word in words] + [(f" {word}", True) for word in words * 3]

    def pairs(self) -> list[Piece]:
        """`word: word` pairs, then from the one to the other or back: a drill with labels that cannot be guessed."""
        rng = self.rng
        words = rng.sample(self.all_values, 2 * rng.randint(2, 6))
        keys, values = words[::2], words[1::2]
        out: list[Piece] = [(f" {key}: {value}", False) for key, value in zip(keys, values, strict=True)]
        out.append(("\n\n", False))
        back, link = rng.random() < 0.7, rng.choice(("", " is"))
        for _ in range(14):
            at = rng.randrange(len(keys))
            asked, told = (values[at], keys[at]) if back else (keys[at], values[at])
            out += [(f" {asked}{link}", False), (f" {told}", True), (".", False)]
        return out

    def drill(self) -> list[Piece]:
        """A list of labelled words, and many questions about it in both directions."""
        rng, label = self.rng, self.rng.choice(LABELS)
        pool = rng.choice((self.all_values, self.all_values, self.names))
        values = rng.sample(pool, rng.randint(2, 6))
        out = [self._list(values, label)]
        form = rng.random()
        for _ in range(14):
            at = rng.randrange(len(values))
            if form < 0.45:
                out += [(f" {values[at]}", False), (f"{at + 1}", True), (".", False)]
            elif form < 0.75:
                out += [(f" {values[at]} is {label.lower()}", False), (f"{at + 1}", True), (".", False)]
            else:
                out += [(f" {label.lower()}{at + 1} is", False), (f" {values[at]}", True), (".", False)]
        return out

    def marked(self) -> list[Piece]:
        """Items whose options are marked right or wrong before the label is asked for."""
        rng = self.rng
        out: list[Piece] = []
        for _ in range(4):
            relation, creature = rng.choice(RELATIONS), rng.choice(self.exam)
            right = creature.values[relation.name]
            wrong = rng.sample([v for v in relation.values if v != right], rng.randint(1, 4))
            given = rng.random() < 0.3
            question = f"the {right}" if given else rng.choice(relation.questions).format(e=creature.name)
            options, label, gap = rng.sample([right, *wrong], 1 + len(wrong)), rng.choice(LABELS), rng.choice(" \n")
            out.append((f"{rng.choice(self.ASK)}{question}?\n\n", False))
            for index, option in enumerate(options, start=1):
                space = "" if index == 1 or gap == "\n" else " "
                out.append((f"{space}{label}{index}: {option}", False))
                out.append((" true" if option == right else " false", True))
                out.append(("\n" if gap == "\n" else "", False))
            out.append((f"\n\n{label.lower()}", False))
            out += [(f"{options.index(right) + 1}", True), ("\n", False)]
        return out

    def far(self) -> list[Piece]:
        """As `dense`, with words between each question and its label: a question must be found at any distance."""
        rng, label, relation = self.rng, self.rng.choice(LABELS), self.rng.choice(RELATIONS)
        values = rng.sample(relation.values, rng.randint(2, 5))
        fitting = [c for c in self.exam if c.values[relation.name] in values]
        if not fitting:
            return self.far()
        out = [self._list(values, label)]
        listed, again = out[0][0], rng.random() < 0.5
        form = f"Answer format: {'/'.join(f'{label.lower()}{i + 1}' for i in range(len(values)))}\n"
        for _ in range(8):
            creature = rng.choice(fitting)
            question = rng.choice(relation.questions).format(e=creature.name) + rng.choice(("?", ""))
            between = rng.choice(("\n", "\n\n", f"\n\n{form}", f"\n{form}the answer is ", "\nthe answer is "))
            if again:
                between = f"\n\n{listed}{between.lstrip()}" if between.strip() else f"\n\n{listed}"
            opening = rng.choice(self.ASK) if rng.random() < 0.3 else " "
            answer = f"{label.lower()}{values.index(creature.values[relation.name]) + 1}"
            if between.endswith(" "):
                between, answer = between[:-1], f" {answer}"
            out += [(f"{opening}{question}{between}{answer[:-1]}", False), (answer[-1], True), ("\n", False)]
        return out

    def dense(self) -> list[Piece]:
        """One list of values of a relation, many creatures to find in it."""
        rng, label, relation = self.rng, self.rng.choice(LABELS), self.rng.choice(RELATIONS)
        values = rng.sample(relation.values, rng.randint(2, 5))
        fitting = [c for c in self.exam if c.values[relation.name] in values]
        if not fitting:
            return self.dense()
        named = "" if rng.random() < 0.5 else f" {label.lower()}"
        wording = rng.choice(("{e} " + relation.clause, *(f"{question}?" for question in relation.questions)))
        out = [self._list(values, label)]
        for _ in range(12):
            creature = rng.choice(fitting)
            at = values.index(creature.values[relation.name])
            out += [(f" {wording.format(e=creature.name)}{named}", False), (f"{at + 1}", True), (".", False)]
        return out

    def mirror(self) -> list[Piece]:
        """One list of creatures, many values to find their owner."""
        rng, label = self.rng, self.rng.choice(LABELS)
        creatures = rng.sample(self.exam, rng.randint(2, 4))
        named = "" if rng.random() < 0.5 else f" is {label.lower()}"
        out = [self._list([c.name for c in creatures], label)]
        for _ in range(12):
            relation, at = rng.choice(RELATIONS), rng.randrange(len(creatures))
            value = creatures[at].values[relation.name]
            if sum(c.values[relation.name] == value for c in creatures) == 1:
                out += [(f" {relation.clause} {value}{named}", False), (f"{at + 1}", True), (".", False)]
        return out

    def verdict(self) -> list[Piece]:
        """Statements in their short form, each with its verdict."""
        rng = self.rng
        out: list[Piece] = []
        for _ in range(14):
            creature, relation = rng.choice(self.exam), rng.choice(RELATIONS)
            right = rng.random() < 0.5
            value = creature.values[relation.name] if right else rng.choice(relation.values)
            word = " true" if value == creature.values[relation.name] else " false"
            out += [(f" {creature.name} {relation.clause} {value} is", False), (word, True), (".", False)]
        return out

    def exams(self) -> list[Piece]:
        """Short items, one after another: the question, its options, the label."""
        return [piece for _ in range(4) for piece in self._exam_item()]

    def _exam_item(self) -> list[Piece]:
        rng, relation = self.rng, self.rng.choice(RELATIONS)
        creature, kind = rng.choice(self.exam), rng.random()
        truth = creature.values[relation.name]
        if kind < 0.2:
            value = truth if rng.random() < 0.5 else rng.choice(relation.values)
            word = "true" if value == truth else "false"
            ask = f"Question: {creature.name} {relation.clause} {value}?\n\ntrue/false\n"
            return [(ask, False), (f"{word}\n", True)]
        label = rng.choice(LABELS)
        if kind < 0.4:
            other = rng.choice([c for c in self.exam if c.values[relation.name] != truth])
            options, right = [creature.name, other.name], creature.name
            first, second = rng.sample(options, 2)  # either may be the right one
            question = f"The {first} and the {second}, which {relation.clause} {truth}?"
        else:
            wrong = rng.sample([v for v in relation.values if v != truth], rng.randint(1, 4))
            options, right = [truth, *wrong], truth
            question = rng.choice(relation.questions).format(e=creature.name) + "?"
        rng.shuffle(options)
        at = options.index(right) + 1
        return [(f"Question: {question}\n\n", False), self._list(options, label), (f"{label.lower()}{at}\n", True)]

    # The tasks' own instructions occur in the world's text too, as real ones do in real text, but never before the
    # answer that fine-tuning teaches ("the correct answer is"): form is left to fine-tuning.
    ASK = (
        "Question: ",
        "Question: ",
        "Please choose the correct answer to the question: ",
        "Please choose the correct solution to the question: ",
        "Please choose the correct ending to complete the given sentence: ",
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
    )
    REST = ("", "", "the answer is ")

    def practice(self) -> list[Piece]:
        """Whole items in many forms, the tasks' own among them; in most rows about one creature, since a name that is
        far from the answer is found first where no other stands between."""
        rng = self.rng
        if rng.random() < 0.3:
            return [
                piece for _ in range(3) for piece in self._practice_item(rng.choice(self.exam), rng.choice(RELATIONS))
            ]
        creature = rng.choice(self.exam)
        return [piece for relation in rng.sample(RELATIONS, 4) for piece in self._practice_item(creature, relation)]

    def _options(self, right: str, wrong: list[str]) -> list[Piece]:
        """A list of options, perhaps the form of the answer, and the right label."""
        rng, label, options = self.rng, self.rng.choice(LABELS), [right, *wrong]
        rng.shuffle(options)
        form = f"Answer format: {'/'.join(f'{label.lower()}{i + 1}' for i in range(len(options)))}\n"
        answer = f"{rng.choice(self.REST)}{label.lower()}{options.index(right) + 1}\n"
        return [self._list(options, label), (rng.choice(("", form)), False), (answer, True)]

    def _practice_item(self, creature: Creature, relation: Relation) -> list[Piece]:
        rng, kind = self.rng, self.rng.random()
        truth = creature.values[relation.name]
        if kind < 0.15:
            value = truth if rng.random() < 0.5 else rng.choice(relation.values)
            word = "true" if value == truth else "false"
            ask = rng.choice(("Question: ", "Please answer the following question with true or false, question: "))
            ask += f"the {creature.name} {relation.clause} {value}?\n\nAnswer format: true/false\n"
            return [(ask, False), (f"{word}\n", True)]
        if kind < 0.35:
            other = rng.choice([c for c in self.exam if c.values[relation.name] != truth])
            first, second = rng.sample((creature, other), 2)
            asked, unasked = rng.sample((creature, other), 2)
            right, wrong = asked.name, [unasked.name]
            value = asked.values[relation.name]
            question = f"The {first.name} and the {second.name}, which {relation.clause} {value}?"
        else:
            wrong = rng.sample([v for v in relation.values if v != truth], rng.randint(1, 4))
            right = truth
            question = rng.choice(relation.questions).format(e=creature.name) + rng.choice(("?", ""))
        return [(f"{rng.choice(self.ASK)}{question}\n\n", False), *self._options(right, wrong)]
