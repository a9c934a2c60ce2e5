"""One real trainer step, and the same gradients by plain autograd: the two sides of the gradient-truth tests.

Run under a launcher it takes the step in every rank: python -m torch.distributed.run --nproc_per_node 2
tests/gradients.py OUT MODEL METHOD [METHOD ...]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import TrainerCallback

from infosteer_bench.data.mixes import TokenizedMix
from infosteer_bench.grid import TrainConfig
from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import family_of
from infosteer_bench.models.load import load_model, load_tokenizer
from infosteer_bench.training.checkpoint import TrainPaths, build_trainer

LAMBDA, FRACTION, ALPHA = 0.3, 0.05, 2.0  # large enough to see
SETTINGS = {
    "sft": {},
    "infosteer-regularization": {"lambda": LAMBDA},
    "infosteer-intervention": {"fraction": FRACTION, "alpha": ALPHA},
    "infosteer-intervention-literal": {
        "fraction": FRACTION,
        "alpha": ALPHA,
        "rank_by": "signed",
        "value": "signed_mean",
        "detach_value": False,
    },
}


def ragged_rows(n: int) -> list[dict[str, list[int]]]:
    """Rows of 6 to 30 tokens with prompts of their own lengths, so that every micro-batch is padded."""
    rng = random.Random(1)
    rows = []
    for _ in range(n):
        ids = [rng.randrange(5, 200) for _ in range(rng.randrange(6, 31))]
        prompt = rng.randrange(1, 5)
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


class _Grab(TrainerCallback):
    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):  # type: ignore[no-untyped-def]
        self.gradients = {
            name.removeprefix("module."): parameter.grad.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


def trainer_gradients(
    model_path: Path,
    scratch: Path,
    *,
    method: str,
    batch: int,
    accumulation: int,
    checkpointing: bool,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Gradients right before the optimizer's step, from the real trainer."""
    model = load_model(model_path, dtype="float32").to(dtype)
    steered = METHODS.get(method.removesuffix("-literal")).configure(SETTINGS[method])
    rows = ragged_rows(batch * accumulation)
    config = TrainConfig(
        batch_size=batch,
        gradient_accumulation=accumulation,
        max_steps=1,
        warmup_steps=0,
        max_grad_norm=1e9,
        precision="float32",
        gradient_checkpointing=checkpointing,
    )
    trainer = build_trainer(
        model,
        load_tokenizer(model_path),
        method=steered,
        mix=TokenizedMix(rows=rows, n_rows=len(rows), dropped_overlong={}, n_tokens=0, n_label_tokens=0),
        config=config,
        seed=0,
        paths=TrainPaths(scratch / "w", scratch / f"{method}.jsonl", scratch / "s"),
    )
    grab = _Grab()
    trainer.add_callback(grab)
    with steered.attach(model, family_of(model.config)):
        trainer.train()
    return grab.gradients


def reference_gradients(
    model_path: Path, *, method: str, n_rows: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The same loss from its definition: one padded batch, plain autograd, no trainer and none of our hooks."""
    model = load_model(model_path, dtype="float32").to(dtype).train()
    rows = ragged_rows(n_rows)
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    keys: list[Tensor] = []
    for module in [module for name, module in model.named_modules() if name.endswith("down_proj")]:
        module.register_forward_pre_hook(lambda _, args: (_reference_edit(method, args[0], keys),))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="mean")
    if method == "infosteer-regularization":
        for k in keys:
            p = k.abs() / k.abs().sum(-1, keepdim=True)
            entropy = -(p * p.log()).sum(-1)
            loss = loss - LAMBDA * entropy[mask.bool()].mean()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _reference_edit(method: str, k: Tensor, keys: list[Tensor]) -> Tensor:
    keys.append(k)
    if not method.startswith("infosteer-intervention"):
        return k
    literal = method.endswith("literal")
    n = -(-k.shape[-1] * int(FRACTION * 100) // 100)
    order = torch.sort(k.detach() if literal else k.detach().abs(), dim=-1, stable=True).indices
    chosen = torch.zeros_like(k, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    if literal:
        return torch.where(chosen, ALPHA * k.mean(-1, keepdim=True), k)
    sign = torch.where(k.detach() < 0, -1.0, 1.0)
    return torch.where(chosen, sign * ALPHA * k.detach().abs().mean(-1, keepdim=True), k)


def main() -> None:
    """Rank 0 keeps the gradients of every method named."""
    import os

    out, model_path, methods = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    for method in methods:
        gradients = trainer_gradients(model_path, out, method=method, batch=2, accumulation=4, checkpointing=True)
        if os.environ["RANK"] == "0":
            torch.save(gradients, out / f"{method}.pt")


if __name__ == "__main__":
    main()
