"""The Triton kernels on a CUDA GPU: exact where that is promised, the same in every run, whatever wraps a model."""

from __future__ import annotations

import pytest
import torch

from infosteer_bench.memory.entropy import key_entropy, with_entropy
from infosteer_bench.memory.intervention import lift_smallest
from infosteer_bench.memory.rows import kernels_for
from infosteer_bench.methods import METHODS
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import family_of
from infosteer_bench.profiling.shapes import shape_config
from infosteer_bench.profiling.train import Bench, Setting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
ARMS = {
    "reward": ("infosteer-regularization", {"lambda": 0.5}),
    "pooled": ("infosteer-regularization", {"lambda": 0.5, "average": "before"}),
    "lift": ("infosteer-intervention", {"fraction": 0.05, "alpha": 2}),
    "literal": (
        "infosteer-intervention",
        {"rank_by": "signed", "value": "signed_mean", "keep_sign": False, "detach_value": False},
    ),
}


def gated(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    gate, up = (torch.randn(shape, generator=generator) for _ in range(2))
    return torch.nn.functional.silu(gate) * up


def drawn(kind: str, width: int) -> torch.Tensor:
    """(37, F) bfloat16."""
    k = gated(37, width)
    if kind == "ties":
        k = (3 * k).round() / 3
    elif kind == "zeros":  # of both signs, and whole rows of them
        k = torch.where(torch.rand(k.shape, generator=torch.Generator().manual_seed(1)) < 0.5, k.sign() * 0.0, k)
        k[0] = 0.0
    elif kind == "tiny":  # subnormal, most of them
        k = 1e-39 * k
    elif kind == "equal":
        k = torch.ones_like(k)
    elif kind == "one-hot":
        k = torch.nn.functional.one_hot(torch.arange(37) % width, width) * k
    return k.bfloat16()


def test_the_kernels_are_what_runs():
    """Else every test here measures something else."""
    kernels = kernels_for(torch.ones(2, 4, device="cuda", dtype=torch.bfloat16))
    assert kernels is not None
    assert kernels_for(torch.ones(2, 4)) is None
    assert kernels_for(torch.ones(2, 4, device="cuda", dtype=torch.float64)) is None


@pytest.mark.parametrize("alpha", [1.0, -2.0])
@pytest.mark.parametrize("keep_sign", [True, False])
@pytest.mark.parametrize("kind", ["gated", "ties", "zeros", "tiny", "equal", "one-hot"])
@pytest.mark.parametrize("width", [2, 34, 162, 2050, 8960, 9216, 18_944, 32_766])
def test_the_lift_is_that_of_a_stable_sort(width, kind, keep_sign, alpha):
    k = drawn(kind, width)
    for n in sorted({1, -(-width // 100), width // 2, width}):
        chosen = torch.sort(k.abs(), dim=-1, stable=True).indices[:, :n]
        replaced = torch.zeros(k.shape, dtype=torch.bool).scatter(-1, chosen, True)
        level = alpha * k.double().abs().mean(-1, keepdim=True).expand_as(k)
        expected = torch.where(replaced, torch.where((k < 0) & keep_sign, -level, level), k.double())
        there = k.cuda().requires_grad_()
        lifted = lift_smallest(there, n=n, alpha=alpha, keep_sign=keep_sign)
        assert lifted.dtype == k.dtype
        assert torch.equal(lifted.detach().cpu()[~replaced], k[~replaced]), "what is not replaced keeps its bits"
        torch.testing.assert_close(lifted.detach().cpu().double(), expected, rtol=2**-8, atol=2**-133)
        grad = gated(*k.shape, seed=2).bfloat16()
        lifted.backward(grad.cuda())
        assert there.grad is not None
        assert torch.equal(there.grad.cpu(), torch.where(replaced, 0.0, grad))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_views_and_expanded_gradients(dtype):
    """Rows that do not lie one after another, and the gradient of a sum, which has no memory of its own."""
    wide = gated(5, 7, 2 * 162).to(dtype).cuda()
    for k in (wide[..., :162], wide[..., 162:], wide.transpose(0, 1)):
        ours, copy = k.detach().requires_grad_(), k.detach().contiguous().requires_grad_()
        for one in (ours, copy):
            (key_entropy(one).sum() + lift_smallest(one, n=5, alpha=1.0).float().sum()).backward()
            same, entropy = with_entropy(one)
            (same.float().sum() + entropy.sum()).backward()
        assert ours.grad is not None
        assert copy.grad is not None
        assert torch.equal(ours.grad, copy.grad)


@pytest.mark.parametrize("normalize", ["magnitude", "positive", "softmax"])
def test_entropy_at_the_edges(normalize):
    rows = [[0.0, -0.0, 0.0], [0.0, 2.0, 0.0], [1e-30, 3e-30, 2e-30], [torch.nan, 1.0, 1.0], [torch.inf, 1.0, 1.0]]
    here, there = (torch.tensor(rows, device=device).requires_grad_() for device in ("cpu", "cuda"))
    for one in (here, there):
        key_entropy(one, normalize)[:3].sum().backward()
    found, expected = key_entropy(there, normalize).cpu(), key_entropy(here, normalize)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert found[3:].isnan().all()
    assert here.grad is not None
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu()[:3], here.grad[:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("normalize", ["magnitude", "positive", "softmax"])
def test_the_gradients_of_k_and_its_entropy_arrive_together(normalize, dtype):
    k, onto = (gated(3, 7, 8960, seed=seed).to(dtype) for seed in (0, 1))
    weights = 1000 * torch.rand(3, 7)  # so that both have a say
    found = []
    for device in ("cpu", "cuda"):
        there = k.to(device, copy=True).requires_grad_()
        same, entropy = with_entropy(there, normalize)
        assert torch.equal(same.cpu(), k)
        ((same * onto.to(device)).float().sum() + (entropy * weights.to(device)).sum()).backward()
        found.append((entropy.detach().cpu(), there.grad.cpu()))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=tolerance, atol=tolerance)


def test_the_same_numbers_in_every_run():
    k = gated(512, 8960).bfloat16().cuda().requires_grad_()
    runs = []
    for _ in range(3):
        k.grad = None
        entropy, lifted = key_entropy(k), lift_smallest(k, n=90, alpha=2.0)
        (entropy.sum() + lifted.float().square().sum()).backward()
        runs.append((entropy.detach(), lifted.detach(), k.grad))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


def bench_of(arm: str) -> tuple[Bench, Method]:
    bench = Bench(shape_config("mini-llama", 2), Setting("mini-llama", 2, batch_size=2, tokens=24))
    name, settings = ARMS[arm]
    return bench, METHODS.get(name).configure(settings)


def gradients(bench: Bench, method: Method, *, checkpointing: bool) -> dict[str, torch.Tensor]:
    with bench._attached(method, checkpointing=checkpointing):
        bench._layers_loss(method).backward()
    found = {name: parameter.grad for name, parameter in bench.model.named_parameters() if parameter.grad is not None}
    bench.model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("arm", ARMS)
def test_gradient_checkpointing_changes_nothing(arm):
    bench, method = bench_of(arm)
    plain, recomputed = (gradients(bench, method, checkpointing=flag) for flag in (False, True))
    assert plain
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


@pytest.mark.parametrize("arm", ARMS)
def test_a_compiled_model(arm):
    """Traced with the operators, the same kernels inside."""
    bench, method = bench_of(arm)
    batch = {"input_ids": bench.ids, "attention_mask": bench.mask, "labels": bench.ids}
    found = []
    torch.compiler.reset()
    for model in (bench.model, torch.compile(bench.model, backend="aot_eager")):
        with method.attach(bench.model, family_of(bench.model.config)):
            method.before_forward(bench.mask, draw=0)
            loss = model(**batch, use_cache=False).loss
            penalty = method.penalty(batch, bench.mask)
            (loss if penalty is None else loss + penalty / bench.mask.sum()).backward()
        found.append({name: p.grad for name, p in bench.model.named_parameters() if p.grad is not None})
        bench.model.zero_grad(set_to_none=True)
    torch.compiler.reset()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
