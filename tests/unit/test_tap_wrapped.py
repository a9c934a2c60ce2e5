"""The tap on models that something else has wrapped: PEFT, torch.compile, FSDP, autocast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import decoder, ffn_layers
from infosteer_bench.models.load import load_model

ROOT = Path(__file__).parents[2]
IDS = torch.arange(5, 35).reshape(3, 10)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
ARMS = {
    "reward": ("infosteer-regularization", {"lambda": 0.5}),
    "pooled": ("infosteer-regularization", {"lambda": 0.5, "average": "before"}),
    "lift": ("infosteer-intervention", {"fraction": 0.05, "alpha": 2}),
    "random": ("infosteer-intervention", {"fraction": 0.05, "control": "random_keys"}),
}


def loss_of(model, method) -> torch.Tensor:
    mask = method.token_mask(BATCH)
    method.before_forward(mask, draw=3)
    loss = model(**BATCH, use_cache=False).loss
    penalty = method.penalty(BATCH, mask)
    return loss if penalty is None else loss + penalty / mask.sum()


def gradients(model, method) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with method.attach(model, None) as tap:
        loss_of(model, method).backward()
        assert tap.invocations == 2
    assert not any(module._forward_pre_hooks for module in model.modules())
    return {
        name.replace("_orig_mod.", ""): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def arm(name: str):
    method, settings = ARMS[name]
    return METHODS.get(method).configure(settings)


@pytest.mark.parametrize(
    ("family", "name"), [*(("llama", name) for name in ARMS), ("gemma2", "pooled"), ("gemma2", "lift")]
)
def test_a_compiled_model(tiny_models, family, name):
    """Compiled before the tap is put on, run without it first: traced anew with the hooks, and again without them.

    Every arm on one family; on the other, whose blocks are traced differently, one that reads and one that edits.
    """
    plain = load_model(tiny_models[family], dtype="float32").train()
    truth = gradients(plain, arm(name))
    with torch.no_grad():
        bare = plain(IDS, use_cache=False).logits
    torch.compiler.reset()
    compiled = torch.compile(load_model(tiny_models[family], dtype="float32").train(), backend="aot_eager")
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(compiled(IDS, use_cache=False).logits, bare, rtol=1e-5, atol=1e-5)
        ours = gradients(compiled, arm(name))
        assert ours.keys() == truth.keys()
        for parameter, expected in truth.items():
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours[parameter], expected, rtol=1e-5, atol=1e-5 * scale)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ARMS)
def test_a_model_with_an_adapter(tiny_models, name):
    """A fresh LoRA adds nothing: same readings, same edits, so the same loss; its gradients by the chain rule."""
    from peft import LoraConfig, get_peft_model

    plain = load_model(tiny_models["qwen2"], dtype="float32").train()
    method = arm(name)
    with method.attach(plain, None):
        expected = loss_of(plain, method).detach()
    truth = gradients(plain, method)
    config = LoraConfig(r=2, lora_alpha=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(tiny_models["qwen2"], dtype="float32"), config).train()
    assert all("down_proj" in type(m).__name__ or hasattr(m, "lora_A") for m in ffn_layers(model))
    method = arm(name)
    with method.attach(model, None):
        torch.testing.assert_close(loss_of(model, method).detach(), expected, rtol=1e-6, atol=1e-6)
    ours = gradients(model, method)
    checked = 0
    for parameter, gradient in ours.items():
        if "lora_B" in parameter:  # W + B A with B = 0: dL/dB = dL/dW A^T
            a = model.get_parameter(parameter.replace("lora_B", "lora_A"))
            weight = parameter.removeprefix("base_model.model.").replace(".lora_B.default", "")
            expected = truth[weight] @ a.detach().T
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
            checked += 1
    assert checked == 2 * 7


def test_under_autocast_the_tap_sees_bfloat16(tiny_models):
    model = load_model(tiny_models["llama"], dtype="float32")
    from infosteer_bench.memory.tap import Tap

    layers = dict(enumerate(ffn_layers(model)))
    with torch.autocast("cpu", torch.bfloat16), Tap(root=decoder(model), layers=layers, read=lambda k, _: k) as tap:
        model(IDS, use_cache=False)
        assert {k.dtype for k in tap.take().values()} == {torch.bfloat16}


def test_a_sharded_model(tiny_models):
    """Two gloo ranks, FSDP on the CPU, with and without gradient checkpointing."""
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *(str(ROOT / "tests" / "sharded.py"), str(tiny_models["llama"])),
        ],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
