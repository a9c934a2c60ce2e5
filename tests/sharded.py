"""The tap on a model sharded by FSDP, run in every rank: python -m torch.distributed.run --nproc_per_node 2
tests/sharded.py MODEL. Each rank compares values and whole gradients with those of the unsharded model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import decoder, family_of
from infosteer_bench.models.load import load_model

ARMS = (
    ("infosteer-regularization", {"lambda": 0.5}),
    ("infosteer-regularization", {"lambda": 0.5, "average": "before"}),
    ("infosteer-intervention", {"fraction": 0.05, "alpha": 2}),
    ("infosteer-intervention", {"fraction": 0.05, "control": "noise"}),
)


def step(model, method, *, checkpointing: bool):
    """Loss and gradients of one batch."""
    ids = torch.arange(5, 45).reshape(4, 10)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids}
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    counted = method.token_mask(batch)
    with method.attach(model, family_of(model.config)) as tap:
        method.before_forward(counted, draw=7)
        loss = model(**batch, use_cache=False).loss
        penalty = method.penalty(batch, counted)
        if penalty is not None:
            loss = loss + penalty / counted.sum()
        loss.backward()
        assert tap.invocations == (4 if checkpointing else 2)
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradients[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        parameter.grad = None
    assert not any("hook" in repr(hook) and "Tap" in repr(hook) for hook in _pre_hooks(model))
    return loss.detach(), gradients


def _pre_hooks(model):
    return [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]


def main() -> None:
    """Raises where anything differs."""
    path = Path(sys.argv[1])
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, settings in ARMS:
        for checkpointing in (False, True):
            method = METHODS.get(name).configure(settings)
            loss, truth = step(load_model(path, dtype="float32").train(), method, checkpointing=False)
            model = load_model(path, dtype="float32").train()
            for layer in decoder(model).layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
            sharded_loss, ours = step(model, method, checkpointing=checkpointing)
            torch.testing.assert_close(sharded_loss, loss, rtol=1e-5, atol=1e-6)
            assert ours.keys() == truth.keys()
            for parameter, expected in truth.items():
                scale = float(expected.abs().max())
                torch.testing.assert_close(ours[parameter], expected, rtol=1e-5, atol=1e-5 * scale)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
