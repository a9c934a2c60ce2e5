"""What the regularization does to text that no run has trained on: rewarded entropy rises, penalised it falls."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import ffn_layers
from infosteer_bench.models.load import load_model
from tests.tiny import FAMILY_NAMES
from tests.training import FAST, train

LONGER = FAST.model_copy(update={"epochs": 5, "learning_rate": 3e-3, "entropy_every": None})


def held_out(n: int = 32) -> torch.Tensor:
    """(n, 24) token ids, other rows than `ragged_rows` gives."""
    rng = random.Random("held out")
    return torch.tensor([[rng.randrange(5, 200) for _ in range(24)] for _ in range(n)])


@torch.no_grad()
def mean_entropy(weights) -> float:
    """Nats, over tokens and layers of an exported checkpoint, from the definition by hooks of this test's own."""
    model = load_model(weights, dtype="float32").eval()
    found: list[torch.Tensor] = []

    def read(module, args):
        p = args[0].abs() / args[0].abs().sum(-1, keepdim=True)
        found.append(torch.special.entr(p).sum(-1).mean())

    for layer in ffn_layers(model):
        layer.register_forward_pre_hook(read)
    model(held_out(), use_cache=False)
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_entropy_on_held_out_text_follows_lambda(tiny_models, tmp_path, family):
    """Three seeds, each on its own: lambda < 0 below sft below lambda > 0."""
    for seed in (0, 1, 2):
        entropy = {}
        for strength in (-0.3, 0.0, 0.3):
            name, settings = ("infosteer-regularization", {"lambda": strength}) if strength else ("sft", {})
            folder = tmp_path / f"{seed}/{strength}"
            train(tiny_models[family], folder, METHODS.get(name).configure(settings), LONGER, seed)
            entropy[strength] = mean_entropy(folder / "weights")
        assert entropy[-0.3] < entropy[0.0] < entropy[0.3] <= math.log(160), (seed, entropy)


@pytest.mark.parametrize("settings", [{"normalize": "positive"}, {"normalize": "softmax"}, {"average": "before"}])
def test_every_reading_of_the_formula_trains_towards_what_it_rewards(tiny_models, tmp_path, settings):
    reward = {}
    for strength in (-0.3, 0.3):
        method = METHODS.get("infosteer-regularization").configure({"lambda": strength, **settings})
        train(tiny_models["qwen2"], tmp_path / str(strength), method, LONGER)
        lines = (tmp_path / str(strength) / "curve.jsonl").read_text().splitlines()
        reward[strength] = [json.loads(line)["penalty"] / -strength for line in (lines[0], lines[-1])]
    assert reward[-0.3][0] == pytest.approx(reward[0.3][0], rel=1e-5), "the same model and batch to begin with"
    assert reward[-0.3][1] < reward[-0.3][0]
    assert reward[-0.3][1] < reward[0.3][1]  # softmax of small coefficients begins at its maximum and cannot rise
