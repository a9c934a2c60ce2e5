"""Pretraining text: facts in many wordings, drills, exam-like items about `exam` creatures, small arithmetic.

    corpus = Corpus(world, vocabulary, width=96, withheld=None, bos=None, eos=3)
    ids, labels, known = corpus.batch(64, {"facts": 0.5, "drill": 0.5}, stream="step 1")

A document is a list of pieces: only counted ones carry loss, since nothing can be learned from the random lists that
drills and exams are made of. Documents fill one row of `width` tokens each. `known` holds the value that a counted
token is or depends on: a value itself, told or read from a list, or the one whose label or verdict is asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import numpy as np

from infosteer_bench.data.miniworld import problems
from infosteer_bench.data.miniworld.problems import Piece
from infosteer_bench.data.miniworld.wording import CHOOSE, TRUE_OR_FALSE, answer_format, claim, listed, offered
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
        self.value_ids = frozenset(vocabulary[f" {value}"] for value in self.all_values)
        self.makers: dict[str, Callable[[], list[Piece]]] = {
            "facts": self.facts,
            "profile": self.profile,
            "repeat": self.repeat,
            "pairs": self.pairs,
            "drill": self.drill,
            "same": self.same,
            "ask": self.ask,
            "dense": self.dense,
            "far": self.far,
            "verdict": self.verdict,
            "sums": lambda: problems.sums(self.rng),
            "problems": lambda: problems.exam_problems(self.rng),
            "reasoning": lambda: problems.reasoning(self.rng),
        }

    def batch(self, rows: int, mixture: dict[str, float], *, stream: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, labels and known values, each (rows, width), IGNORE where there is none; documents drawn by the
        shares of `mixture`, the same for one `stream`."""
        self.rng.seed(f"{self.world.seed} {stream}")
        kinds = self.rng.choices(list(mixture), list(mixture.values()), k=rows)
        ids = np.full((rows, self.width), self.eos, dtype=np.int64)
        labels, known = np.full_like(ids, IGNORE), np.full_like(ids, IGNORE)
        for row, kind in enumerate(kinds):
            tokens, counted, values = self.encode(self.makers[kind]())
            count = min(len(tokens), self.width)
            ids[row, :count] = tokens[:count]
            labels[row, :count] = np.where(counted[:count], tokens[:count], IGNORE)
            known[row, :count] = values[:count]
        return ids, labels, known

    def encode(self, pieces: Sequence[Piece]) -> tuple[list[int], list[bool], list[int]]:
        """Token ids of a document, whether each is counted, and the value to be known for it or IGNORE."""
        tokens: list[int] = [] if self.bos is None else [self.bos]
        counted, known = [False] * len(tokens), [IGNORE] * len(tokens)
        for text, count, *value in pieces:
            part = self._ids(text)
            tokens.extend(part)
            counted.extend([count] * len(part))
            if value:
                known.extend(self._ids(f" {value[0]}") * len(part))
            else:
                known.extend(token if count and token in self.value_ids else IGNORE for token in part)
            if len(tokens) >= self.width:
                break
        return tokens, counted, known

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
        return (listed(values, label, sep=self.rng.choice((" ", "\n", "\n\n"))) + "\n\n", False)

    def repeat(self) -> list[Piece]:
        """Random words, then the same words again: what forms the heads that find an earlier place (induction)."""
        words = self.rng.sample(self.all_values, self.rng.randint(8, 30))
        out: list[Piece] = [(f" {word}", False) for word in words]
        out += [(f" {word}", True) for word in words * 3]
        return out

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

    def same(self) -> list[Piece]:
        """Whether two words are the same one: what a verdict on a claim takes."""
        rng, out = self.rng, list[Piece]()
        close = rng.choice(("", " is", "?", "\n"))
        for _ in range(14):
            word, other = rng.sample(self.all_values, 2)
            if rng.random() < 0.5:
                other = word
            verdict = "true" if other == word else "false"
            out += [(f" is it {word} that the {other}{close}", False), (f" {verdict}", True), (".", False)]
        return out

    # The tasks' own instructions and the words before an answer occur in the world's text too, as real ones do in real
    # text, but carry no loss: to say them is left to fine-tuning.
    ASK = (
        " ",
        "Question: ",
        f"{CHOOSE}answer to the question: ",
        f"{CHOOSE}solution to the question: ",
        f"{CHOOSE}ending to complete the given sentence: ",
        f"{CHOOSE}answer to fill in the blank to complete the given sentence: ",
    )

    def _opening(self, *, plain: float) -> str:
        """What stands before a question; nothing but a blank with probability `plain` at least."""
        return " " if self.rng.random() < plain else self.rng.choice(self.ASK)

    def _question(self, creature: Creature, relation: Relation) -> str:
        wording = self.rng.choice((*relation.questions, *relation.questions, "{e} " + relation.clause))
        return wording.format(e=creature.name) + self.rng.choice(("?", ""))

    def ask(self) -> list[Piece]:
        """Open questions about many creatures, each with its answer."""
        out: list[Piece] = []
        for _ in range(9):
            creature, relation = self.rng.choice(self.exam), self.rng.choice(RELATIONS)
            question = f"{self._opening(plain=0.8)}{self._question(creature, relation)}"
            out += [(question, False), (f" {creature.values[relation.name]}", True), (".", False)]
        return out

    def dense(self) -> list[Piece]:
        """One list of values of a relation, many creatures to find in it."""
        rng, label, relation = self.rng, self.rng.choice(LABELS), self.rng.choice(RELATIONS)
        values = rng.sample(relation.values, rng.randint(2, 5))
        fitting = [c for c in self.exam if c.values[relation.name] in values]
        if not fitting:
            return self.dense()
        named = rng.choice(("", f" {label.lower()}"))
        wording = rng.choice(("{e} " + relation.clause, *(f"{question}?" for question in relation.questions)))
        inside = rng.random() < 0.5
        out = [(self._opening(plain=0.0) + offered(values, label), False) if inside else self._list(values, label)]
        for _ in range(12):
            creature = rng.choice(fitting)
            at = values.index(creature.values[relation.name])
            question = f" {wording.format(e=creature.name)}{named}"
            out += [(question, False), (f"{at + 1}", True, values[at]), (".", False)]
        return out

    def far(self) -> list[Piece]:
        """Items in the tasks' own form, where words stand between the question and its label: whole ones, or questions
        to one offer; as many as fit into a row."""
        rng, label, relation = self.rng, self.rng.choice(LABELS), self.rng.choice(RELATIONS)
        if rng.random() < 0.5:
            creatures = [rng.choice(self.exam) for _ in range(2)]
            return [piece for creature in creatures for piece in self._whole_item(creature)]
        values = rng.sample(relation.values, rng.randint(2, 5))
        fitting = [c for c in self.exam if c.values[relation.name] in values]
        if not fitting:
            return self.far()
        out: list[Piece] = [(self._opening(plain=0.0) + offered(values, label), False)]
        for _ in range(6):
            creature = rng.choice(fitting)
            right = values.index(creature.values[relation.name])
            out += self._asked(f" {self._question(creature, relation)}\n\n", label, right, len(values), values[right])
        return out

    def _whole_item(self, creature: Creature) -> list[Piece]:
        """The answers on offer, the question, mostly the list once more, the label."""
        rng, relation, label = self.rng, self.rng.choice(RELATIONS), self.rng.choice(LABELS)
        truth = creature.values[relation.name]
        values = [truth, *rng.sample([v for v in relation.values if v != truth], rng.randint(1, 4))]
        rng.shuffle(values)
        again = self._list(values, label)[0] if rng.random() < 0.8 else ""
        question = f"{self._opening(plain=0.0)}{offered(values, label)} {self._question(creature, relation)}\n\n{again}"
        return self._asked(question, label, values.index(truth), len(values), truth)

    def _asked(self, question: str, label: str, right: int, number: int, known: str) -> list[Piece]:
        """A question and its label, with the template's last line between them or without it."""
        form = f"{answer_format(label, number)}\n" if self.rng.random() < 0.5 else ""
        rest = self._lead()
        return [(f"{question}{form}{rest}{label.lower()}", False), (f"{right + 1}", True, known), ("\n", False)]

    def _lead(self) -> str:
        """What an answer may begin with."""
        return self.rng.choice(("", "the answer is ", "the final answer is ", "the correct answer is "))

    def verdict(self) -> list[Piece]:
        """Claims with their verdicts, many short ones or some in the tasks' own form."""
        rng, short = self.rng, self.rng.random() < 0.6
        out: list[Piece] = []
        for _ in range(9 if short else 3):
            creature, relation = rng.choice(self.exam), rng.choice(RELATIONS)
            truth = creature.values[relation.name]
            value = truth if rng.random() < 0.5 else rng.choice(relation.values)
            word, question = "true" if value == truth else "false", claim(creature.name, relation, value)
            if short:
                out += [(f" {question}", False), (f" {word}", True, truth), (".", False)]
            else:
                opening, lead = rng.choice(("Question: ", TRUE_OR_FALSE)), self._lead()
                asked = f"{opening}{question}?\n\nAnswer format: true/false\n{lead}".rstrip(" ")
                out += [(asked, False), (f" {word}" if lead else word, True, truth), ("\n", False)]
        return out
