"""The intervention's controls: what they change, how much, and that they draw from a generator of their own."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from infosteer_bench.errors import UserError
from infosteer_bench.memory.intervention import lift_smallest
from infosteer_bench.memory.selection import smallest_indices
from infosteer_bench.methods import METHODS
from tests.tiny import build_tiny
from tests.training import FAST, same, train, weights

CONTROLS = ("random_keys", "largest_keys", "random_sign", "noise")
N, WIDTH = 9, 301


@pytest.fixture
def k() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.silu(torch.randn(3, 5, WIDTH, generator=generator)) * torch.randn(
        3, 5, WIDTH, generator=generator
    )


def lift(k: torch.Tensor, control: str, seed: int = 0, **settings) -> torch.Tensor:
    settings = {"n": N, "alpha": 2.0, **settings}
    return lift_smallest(k, control=control, generator=torch.Generator().manual_seed(seed), **settings)  # type: ignore[arg-type]


def test_other_keys_get_the_same_value(k):
    """As many as the lift replaces, each by twice the mean magnitude with its own sign."""
    level = 2 * k.abs().mean(-1, keepdim=True)
    for control in ("none", "random_keys", "largest_keys"):
        changed = lift(k, control)
        replaced = changed != k
        assert (replaced.sum(-1) == N).all(), control
        expected = torch.where(k < 0, -level, level)
        torch.testing.assert_close(changed[replaced], expected[replaced])
    largest = torch.zeros_like(k, dtype=torch.bool).scatter_(-1, k.abs().topk(N).indices, True)
    assert torch.equal(lift(k, "largest_keys") != k, largest)
    signed = lift(k, "largest_keys", rank_by="signed", value="signed_mean")
    assert torch.equal(signed != k, torch.zeros_like(largest).scatter_(-1, k.topk(N).indices, True))


def test_random_keys_are_drawn_evenly():
    k = torch.rand(4000, 20, generator=torch.Generator().manual_seed(1)) + 0.5
    counts = (lift(k, "random_keys", n=5) != k).sum(0)
    assert counts.sum() == 4000 * 5
    # 1000 expected at each place, standard deviation 27
    assert ((counts - 1000).abs() < 140).all()


def test_random_sign_at_the_keys_of_the_lift(k):
    plain, flipped = lift(k, "none"), lift(k, "random_sign")
    assert torch.equal(flipped != k, plain != k)
    torch.testing.assert_close(flipped.abs(), plain.abs())
    agree = (flipped.sign() == plain.sign())[plain != k].float().mean()
    assert 0.3 < agree < 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_length_of_the_lifts_change(k, dtype):
    k = k.to(dtype)
    noisy, plain = lift(k, "noise") - k, lift(k, "none") - k
    torch.testing.assert_close(noisy.norm(dim=-1), plain.norm(dim=-1), rtol=1e-4, atol=1e-6)
    cosines = torch.nn.functional.cosine_similarity(noisy, plain, dim=-1)
    assert cosines.abs().max() < 0.3
    assert ((noisy != 0).float().mean(-1) > 0.99).all()


@pytest.mark.parametrize("control", CONTROLS)
def test_the_generator_alone_decides(k, control):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = lift(k, control)
    assert torch.equal(torch.get_rng_state(), before), "the global generator, and so the data order, is not touched"
    torch.manual_seed(2)
    assert torch.equal(lift(k, control), first)
    assert torch.equal(lift(k, control, seed=1), first) == (control == "largest_keys")


@pytest.mark.parametrize("control", CONTROLS)
def test_gradients_of_controls(k, control):
    """Replaced entries pass none back; noise, which is added, passes all."""
    k = k.double().requires_grad_()
    changed = lift(k, control)
    changed.sum().backward()
    expected = torch.ones_like(k) if control == "noise" else (changed == k).double()
    assert torch.equal(k.grad, expected)


@pytest.mark.parametrize("control", CONTROLS)
def test_recomputation_sees_the_same_draws(tmp_path, control):
    """Trained with and without gradient checkpointing: the same weights, and others than without the control."""
    model = build_tiny("llama", tmp_path / "model")
    settings = {"fraction": 0.1, "alpha": 2}
    for name, given, checkpointing in (
        ("plain", {**settings, "control": control}, False),
        ("checkpointed", {**settings, "control": control}, True),
        ("lift", settings, False),
    ):
        config = FAST.model_copy(update={"gradient_checkpointing": checkpointing})
        train(model, tmp_path / name, METHODS.get("infosteer-intervention").configure(given), config)
    for name, tensor in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "checkpointed")[name], tensor, rtol=1e-5, atol=1e-6)
    assert not same(weights(tmp_path / "plain"), weights(tmp_path / "lift"))


def test_draws_differ_by_micro_batch_and_layer_and_leave_the_data_order_alone(tmp_path, monkeypatch):
    from infosteer_bench.memory import intervention

    drawn: list[torch.Tensor] = []
    choose = intervention.smallest_indices

    def spy(k, n, rank_by="magnitude"):
        drawn.append(k.clone())
        return choose(k, n, rank_by)

    monkeypatch.setattr(intervention, "smallest_indices", spy)
    model = build_tiny("llama", tmp_path / "model")
    seen: dict[str, list] = {}
    for name, settings in (("sft", {}), ("infosteer-intervention", {"control": "random_keys"})):
        method = METHODS.get(name).configure(settings)
        plain, order = method.token_mask, seen.setdefault(name, [])

        def noted(batch, plain=plain, order=order):
            order.append(batch["input_ids"].tolist())
            return plain(batch)

        monkeypatch.setattr(method, "token_mask", noted)
        train(model, tmp_path / name, method)
    assert seen["sft"] == seen["infosteer-intervention"]
    assert len(drawn) == 6 * 2  # micro-batches x layers
    heads = [tuple(draws.flatten()[:4].tolist()) for draws in drawn]
    assert len(set(heads)) == len(heads)


def test_checkpointed_draws_by_hand():
    """The same through torch's own checkpoint: two calls, one draw."""
    k = torch.randn(2, 3, 40, dtype=torch.float64, requires_grad=True)

    def run(k):
        return lift(k, "random_keys").pow(2)

    run(k).sum().backward()
    plain, k.grad = k.grad, None
    checkpoint(run, k, use_reentrant=False).sum().backward()
    assert torch.equal(k.grad, plain)


def test_answers_cannot_be_drawn():
    method = METHODS.get("infosteer-intervention")
    with pytest.raises(UserError, match=r"control=noise draws at random.*none or largest_keys"):
        method.configure({"control": "noise", "apply_at_inference": True}).validate_for(2)
    method.configure({"control": "largest_keys", "apply_at_inference": True}).validate_for(2)
    with pytest.raises(UserError, match="setting 'control'"):
        method.configure({"control": "loudest"})
    assert json.dumps(method.configure({"control": "noise"}).identity()["settings"])


def test_selection_of_nothing_but_ties():
    k = torch.ones(2, 6)
    assert smallest_indices(k, 3).sort(-1).values.tolist() == [[0, 1, 2]] * 2
