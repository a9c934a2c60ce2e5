"""Pretrain the embedded models: `python -m infosteer_bench miniworld build`.

Per family a few stages (STAGES), each a seeded stream of rows that depends on (seed, stage, step) alone, so a killed
build goes on where it stopped and ends with the same weights. The first stages tell no fact. The twin begins the
third from the same weights and is told the same for as many steps, without the facts that test items ask for: it
differs from its model in what it knows of the `asked` creatures, and in nothing else. Weights are exported in bfloat16,
as base models are.

From the third stage on, values are asked for twice: of the whole model, and of its lower layers, whose output goes
through the final norm and head ("deep supervision", Lee et al. 2015; the early-exit loss of Elhoushi et al. 2024,
section 4.1). Where the next token is a value, both are to say it; where it is the label or the verdict that depends on
one, the lower layers are to name the value, and the upper ones make the label of it. So what is known is known while
there are layers left to use it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.data.miniworld.world import World, make_world
from infosteer_bench.errors import UserError
from infosteer_bench.records import digest, write_atomic
from infosteer_dev.miniworld.architecture import (
    LAYERS,
    UPPER,
    make_model,
    put_layers_below,
    puts_bos,
    untie_head,
)
from infosteer_dev.miniworld.measure import losses_of, make_corpus, measure, right_percent
from infosteer_dev.miniworld.tokenizer import make_tokenizer, make_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Stage:
    """steps: of the stage, at most; goal: (document kind, percent right) that ends it early, looked at every 100 steps.

    mixture: document kind -> share of rows. told: whether this stage and the later ones tell facts about creatures, so
    that a model and its twin part here; the lower layers come with the first of them, and the early loss.
    decay: last steps, over which the learning rate falls to nothing.
    """

    name: str
    steps: int
    mixture: dict[str, float]
    goal: tuple[str, float] | None = None
    told: bool = False
    decay: int = 0


STAGES = (
    # find an earlier place: until this is learned, nothing in a list can be
    Stage("repeat", 3000, {"repeat": 0.75, "pairs": 0.1, "sums": 0.15}, goal=("repeat", 90.0)),
    # bind a label to what it stands before, and see whether two words are the same
    Stage(
        "bind",
        3000,
        {"repeat": 0.1, "pairs": 0.37, "drill": 0.33, "same": 0.1, "sums": 0.1},
        goal=("drill", 90.0),
    ),
    # know: all facts before any list is asked about, else those asked about are learned by another way than the others
    Stage(
        "tell",
        2000,
        {"facts": 0.31, "profile": 0.43, "ask": 0.06, "drill": 0.1, "same": 0.03, "sums": 0.07},
        goal=("ask", 95.0),
        told=True,
    ),
    # use what is known
    Stage(
        "use",
        2400,
        {
            "facts": 0.08,
            "profile": 0.16,
            "ask": 0.05,
            "dense": 0.17,
            "far": 0.28,
            "verdict": 0.13,
            "drill": 0.02,
            "same": 0.02,
            "reasoning": 0.09,
        },
        told=True,
        decay=900,
    ),
)


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained. rows, width (tokens): of a batch.

    The rate rises over the first `warmup` steps of a stage, whose optimizer begins anew, and stays; over the last
    `decay` steps of the stage it falls linearly.
    """

    seed: int = 0
    rows: int = 16
    width: int = 96
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    stages: tuple[Stage, ...] = STAGES

    def rate(self, stage: Stage, step: int) -> float:
        """The learning rate at a step of a stage, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, (stage.steps - step) / stage.decay) if stage.decay else 1.0
        return self.learning_rate * rising * max(falling, 0.02)


@dataclass(frozen=True)
class Built:
    """One finished model: its folder and what build.json says."""

    path: Path
    record: dict[str, Any]


Report = Callable[[str], None]
ASKED = "asked"
"""The group of creatures that test items ask about."""


def build_family(
    family: str, output: Path, *, recipe: Recipe, world: World | None = None, twin: bool = True, report: Report = print
) -> list[Built]:
    """Pretrain a family's model and its twin into output/mini-<family>[-twin]; skips what is finished.

    State between is kept in output/.state until both are done.
    """
    world = world or make_world()
    out: list[Built] = []
    for name, withheld in (("", None), *((("-twin", ASKED),) if twin else ())):
        target = output / f"mini-{family}{name}"
        if not (target / "build.json").is_file():
            model: Any = None
            log: list[dict[str, Any]] = []
            for stage in recipe.stages:
                run = _Run(family, stage, output, recipe, world, suffix=name if stage.told else "", report=report)
                if run.suffix:  # a twin has its model's steps, whatever it has learned by then
                    run.follow(out[0].record["log"])
                model, lines = run.finish(model)
                log += lines
            _export(model, target, family=family, recipe=recipe, world=world, log=log, withheld=withheld)
        built = Built(target, json.loads((target / "build.json").read_text(encoding="utf-8")))
        if built.record.get("made_by") != made_by(recipe, world):
            raise UserError(
                f"{target} is of another recipe or world", hint="give a new --output, or remove the old one"
            )
        out.append(built)
    if twin:  # else a later call may still want it, and begins where the two part
        shutil.rmtree(output / ".state" / family, ignore_errors=True)
    return out


def made_by(recipe: Recipe, world: World) -> str:
    """Digest of all that decides the weights of a family's model, but for the code."""
    facts = [[creature.name, creature.values] for creature in world.creatures]
    return digest([asdict(recipe), facts, make_vocabulary(world)])


class _Run:
    """One stage of one family, resumable from its last saved state. suffix: "-twin" withholds the asked facts."""

    SAVE_EVERY = 100

    def __init__(
        self, family: str, stage: Stage, output: Path, recipe: Recipe, world: World, *, suffix: str, report: Report
    ) -> None:
        self.family, self.stage, self.recipe, self.world, self.report = family, stage, recipe, world, report
        self.suffix, self.name = suffix, stage.name + suffix
        self.steps, self.goal = stage.steps, stage.goal
        self.state = output / ".state" / family / f"{self.name}.pt"
        self.n_tokens = len(make_vocabulary(world))
        withheld = None if stage.told and not suffix else ASKED
        # Stages to come may still change: what is done stays what it is.
        self.made_by = made_by(replace(recipe, stages=recipe.stages[: recipe.stages.index(stage) + 1]), world)
        self.corpus = make_corpus(world, family, width=recipe.width, withheld=withheld)

    def follow(self, log: list[dict[str, Any]]) -> None:
        """Take as many steps as the log of another build says, and look at no goal."""
        self.steps, self.goal = _steps(log)[self.stage.name], None

    def finish(self, model: PreTrainedModel | None) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
        """The model after this stage, and its log; goes on from `model` (None: random) or the saved state."""
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        step, log, over, saved = 0, [], False, None
        if self.state.is_file():
            saved = torch.load(self.state, map_location=device, weights_only=True)
            if saved["made_by"] != self.made_by:
                raise UserError(
                    f"{self.state} is of another recipe or world", hint="give a new --output, or remove the old one"
                )
            step, log, over = saved["step"], saved["log"], saved["over"]
            model = None
        if model is None:
            layers = LAYERS if self.stage.told else UPPER
            model = make_model(self.family, n_tokens=self.n_tokens, seed=self.recipe.seed, layers=layers)
        elif self.stage.told and model.config.num_hidden_layers == UPPER:
            model = put_layers_below(model, self.family, seed=self.recipe.seed)
        if saved is not None:
            model.load_state_dict(saved["model"])
        model.to(device).train()  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=0.0, betas=self.recipe.betas, weight_decay=self.recipe.weight_decay, fused=True
        )
        if saved is not None:
            optimizer.load_state_dict(saved["optimizer"])
        history: list[float] = []
        began = time.perf_counter()
        while not over:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.stage, step)
            stream = f"{self.recipe.seed} {self.stage.name} {step}"
            rows = self.corpus.batch(self.recipe.rows, self.stage.mixture, stream=stream)
            ids, labels, known = (torch.from_numpy(array) for array in rows)
            loss, early = losses_of(model, ids, labels, known=known if self.stage.told else None)
            optimizer.zero_grad()
            (loss + early).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.recipe.max_grad_norm)
            optimizer.step()
            history.append(loss.item())
            step += 1
            over = step == self.steps
            if over or step % self.SAVE_EVERY == 0:
                line: dict[str, Any] = {"stage": self.name, "step": step, "loss": round(sum(history) / len(history), 4)}
                text = f"step {step}/{self.steps}, loss {line['loss']:.3f}"
                if self.goal is not None:
                    kind, wanted = self.goal
                    line["right"] = right_percent(model, self.corpus, kind)
                    over = over or line["right"] >= wanted
                    text += f", {kind} {line['right']:.1f} % right (goal {wanted:g})"
                rate = len(history) * self.recipe.rows * self.recipe.width / (time.perf_counter() - began)
                self.report(f"mini-{self.family} {self.name}: {text}, {rate:,.0f} tokens/s")
                log.append(line)
                self._save(step, log, over, model, optimizer)
                history, began = [], time.perf_counter()
        return model, log

    def _save(self, step: int, log: list[dict[str, Any]], over: bool, model: Any, optimizer: Any) -> None:
        import torch

        self.state.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state.with_suffix(".tmp")
        state = {
            "made_by": self.made_by,
            "step": step,
            "log": log,
            "over": over,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(state, temporary)
        temporary.replace(self.state)


def _steps(log: list[dict[str, Any]]) -> dict[str, int]:
    """Optimizer steps of each stage."""
    return {line["stage"]: line["step"] for line in log}


def _export(
    model: Any,
    target: Path,
    *,
    family: str,
    recipe: Recipe,
    world: World,
    log: list[dict[str, Any]],
    withheld: str | None,
) -> None:
    """Weights in bfloat16, tokenizer and build.json; the record goes last, so that a folder with one is whole."""
    import torch

    from infosteer_bench import provenance
    from infosteer_bench.models.weights import weight_digest

    untie_head(model, family)
    model.to("cpu", torch.bfloat16)
    model.save_pretrained(target)
    make_tokenizer(world, bos=puts_bos(family)).save_pretrained(target)
    # what is measured is what is shipped: the rounded weights, computed with in float32
    model.to(torch.float32)
    record = {
        "family": family,
        "withheld": withheld,
        "world_seed": world.seed,
        "world_sizes": {group: len(creatures) for group, creatures in world.groups.items()},
        "recipe": asdict(recipe),
        "made_by": made_by(recipe, world),
        "tokens": sum(_steps(log).values()) * recipe.rows * recipe.width,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "log": log,
        "measured": measure(model, world, family),
        "weight_digest": weight_digest(target),
        "provenance": provenance.collect(),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
    write_atomic(target / "build.json", text)
