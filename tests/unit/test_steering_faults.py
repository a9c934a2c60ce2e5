"""Faults injected into training: each stops the checkpoint before a weight moves, and says at which step and layer."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from infosteer_bench.errors import CellFailure
from infosteer_bench.memory.entropy import key_entropy
from infosteer_bench.memory.tap import Tap
from infosteer_bench.methods import METHODS
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import decoder, ffn_layers
from tests.gradients import ragged_rows
from tests.tiny import build_tiny
from tests.training import FAST, train

QUIET = FAST.model_copy(update={"entropy_every": None})
TRAINED = ("sft", "infosteer-intervention", "infosteer-regularization")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("llama", tmp_path_factory.mktemp("model") / "tiny-llama")


class Odd(Method):
    """Does what a test tells it to k in one layer, from the n-th call on."""

    name = "odd"
    summary = "a test"

    def __init__(self, *, layer: int = 1, call: int = 0, edit=None, read=None) -> None:
        super().__init__()
        self.layer, self.call, self.edit, self.read = layer, call, edit, read

    @contextlib.contextmanager
    def attach(self, model, family):
        calls = [0]

        def late(k, layer):
            if layer == self.layer:
                calls[0] += 1
                if calls[0] > self.call:
                    return (self.edit or self.read)(k)
            return k if self.edit else k.sum(-1)

        given = {"edit": late} if self.edit else {"read": late}
        with Tap(root=decoder(model), layers=dict(enumerate(ffn_layers(model))), **given) as tap:
            self.tap = tap
            yield tap

    def penalty(self, batch, mask):
        return self.tap.take()[self.layer].sum() * 1e-3 if self.read else None


def raising(k):
    raise ValueError("what a hook may raise")


def fail(model: Path, folder: Path, method: Method, message: str, **options) -> None:
    with pytest.raises(CellFailure, match=message):
        train(model, folder, method, options.pop("config", QUIET), **options)
    assert not (folder / "weights").exists()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["edit", "read"])
def test_a_hook_that_raises(model, tmp_path, kind, checkpointing):
    config = QUIET.model_copy(update={"gradient_checkpointing": checkpointing})
    # two micro-batches a step (and twice the calls when recomputed): the third step's first
    method = Odd(call=8 if checkpointing else 4, **{kind: raising})
    fail(model, tmp_path, method, r"^step 3: layer 1: ValueError: what a hook may raise$", config=config)


def test_a_hook_that_raises_while_recomputing(model, tmp_path):
    config = QUIET.model_copy(update={"gradient_checkpointing": True})
    fail(model, tmp_path, Odd(call=1, edit=raising), r"^step 1: layer 1: ValueError", config=config)


@pytest.mark.parametrize(("value", "name"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_an_edit_that_writes_no_number(model, tmp_path, value, name):
    def spoil(k):
        return k.masked_fill(torch.arange(k.shape[-1]) == 3, value)

    message = rf"^step 2: the loss is not finite .*; layer 1 is the first into which the method wrote {name}$"
    fail(model, tmp_path, Odd(call=2, edit=spoil), message)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize(("value", "name"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_give_no_number(model, tmp_path, method, value, name):
    """One up_proj weight of layer 1, as a damaged file has it."""
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    fail(damaged, tmp_path / "out", METHODS.get(method).configure({}), rf"^step 1: .*layer 1 is the first .*{name}")


def test_a_gradient_that_is_no_number(model, tmp_path):
    """A loss may be finite and its gradient not: sqrt at zero."""

    def root(k):
        return (k.sum(-1) * 0).abs().sqrt()

    fail(
        model, tmp_path, Odd(read=root), r"^step 1: the gradient norm is nan; .*finite in every layer; .* is the first"
    )


class Blind(Method):
    """Counts no token, as if a batch were all padding."""

    name = "blind"
    summary = "a test"

    def token_mask(self, batch):
        return torch.zeros_like(batch["attention_mask"], dtype=torch.bool)


def test_a_batch_of_only_padding(model, tmp_path):
    fail(model, tmp_path / "blind", Blind(), r"^step 1: the batch holds no counted token$")
    rows = [{"input_ids": row["input_ids"], "labels": [-100] * len(row["labels"])} for row in ragged_rows(8)]
    for method in TRAINED:
        fail(model, tmp_path / method, METHODS.get(method).configure({}), "^step 1: .* no counted token$", rows=rows)


def test_a_layer_that_was_not_read(model, tmp_path, monkeypatch):
    """Its readings taken by someone else: an error, never a penalty of zero."""
    method = METHODS.get("infosteer-regularization").configure({})
    before = method.penalty

    def robbed(batch, mask):
        method._tap.readings.pop(1)
        return before(batch, mask)

    monkeypatch.setattr(method, "penalty", robbed)
    fail(model, tmp_path, method, r"^step 1: layer 1: its key coefficients were not read")


def test_no_hook_remains_after_a_fault(model):
    from infosteer_bench.models.load import load_model

    loaded = load_model(model, dtype="float32")
    for name in TRAINED[1:]:
        method = METHODS.get(name).configure({})
        with contextlib.suppress(KeyError), method.attach(loaded, None):
            raise KeyError
    with contextlib.suppress(Exception), Odd(edit=raising).attach(loaded, None):
        loaded(torch.tensor([[5, 6]]))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in loaded.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_entropy_passes_what_is_no_number_on(value):
    """The mathematics hides nothing: the row's entropy is NaN, the others' are not."""
    k = torch.ones(2, 3)
    k[1, 2] = value
    entropy = key_entropy(k)
    assert entropy.isnan().tolist() == [False, True]
