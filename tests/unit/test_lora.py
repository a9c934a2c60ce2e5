"""`train.adapter=lora`: PEFT's adapter under any method, merged into a plain checkpoint of the base's own layout."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file

from infosteer_bench.errors import UserError
from infosteer_bench.grid import LoraSettings, load_grid
from infosteer_bench.memory.tap import Tap
from infosteer_bench.methods import METHODS
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import decoder, ffn_layers
from infosteer_bench.models.load import load_model
from infosteer_bench.training import checkpoint as checkpoint_module
from tests.tiny import FAMILY_NAMES
from tests.training import FAST, same, train, weights

LORA = FAST.model_copy(update={"adapter": "lora", "lora": LoraSettings(rank=4, alpha=8), "learning_rate": 1e-2})


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_export_is_the_merged_model(tiny_models, tmp_path, family, monkeypatch):
    """Logits of the exported plain checkpoint equal the wrapped model's; only the targets' weights moved, by rank 4."""
    ids, seen = torch.tensor([[5, 9, 30, 7]]), {}
    original = checkpoint_module.export

    def spy(trainer, *args, **kwargs):
        with torch.no_grad():
            seen["logits"] = trainer.model.eval()(ids, use_cache=False).logits
        original(trainer, *args, **kwargs)

    monkeypatch.setattr(checkpoint_module, "export", spy)
    train(tiny_models[family], tmp_path, METHODS.get("infosteer-regularization").configure({}), LORA)
    loaded = load_model(tmp_path / "weights", dtype="float32").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids, use_cache=False).logits, seen["logits"], rtol=1e-4, atol=1e-4)
    before, after = load_file(tiny_models[family] / "model.safetensors"), weights(tmp_path)
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        change = tensor - before[name]
        if name.endswith("_proj.weight"):
            singular = torch.linalg.svdvals(change.double())
            assert singular[0] > 0
            assert singular[4] < 1e-5 * max(float(singular[0]), float(tensor.abs().max()))
        else:
            assert not change.any(), name
    ours, base = (
        json.loads((path / "config.json").read_text()) for path in (tmp_path / "weights", tiny_models[family])
    )
    assert {**ours, "dtype": None} == {**base, "dtype": None}
    assert not list((tmp_path / "weights").glob("adapter*"))


def test_strength_zero_is_lora_sft(tiny_models, tmp_path):
    train(tiny_models["llama"], tmp_path / "sft", METHODS.get("sft").configure({}), LORA)
    for name, settings in (("infosteer-intervention", {"fraction": 0}), ("infosteer-regularization", {"lambda": 0})):
        train(tiny_models["llama"], tmp_path / name, METHODS.get(name).configure(settings), LORA)
        assert same(weights(tmp_path / name), weights(tmp_path / "sft"))


def test_dropout_and_resumption(tiny_models, tmp_path):
    """Stopped after step 2 of 3, dropout in the adapter: resumed, the same weights as in one go."""
    config = LORA.model_copy(update={"save_steps": 1, "lora": LoraSettings(rank=4, dropout=0.2, targets=("up_proj",))})
    method = METHODS.get("infosteer-intervention").configure({"control": "random_keys"})
    train(tiny_models["llama"], tmp_path / "whole", method, config)

    def stop(step: int, steps: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_models["llama"], tmp_path / "stopped", method, config, on_step=stop)
    steps: list[int] = []
    train(tiny_models["llama"], tmp_path / "stopped", method, config, on_step=lambda step, _: steps.append(step))
    assert steps == [3]
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    changed = {
        name
        for name, tensor in weights(tmp_path / "whole").items()
        if not torch.equal(tensor, load_file(tiny_models["llama"] / "model.safetensors")[name])
    }
    assert changed == {f"model.layers.{index}.mlp.up_proj.weight" for index in (0, 1)}


class Extra(Method):
    """Adds a parameter in `prepare`, which is trained, and folds it into the weights on export."""

    name = "extra"
    summary = "a test"

    def prepare(self, model, family):
        decoder(model).register_parameter("gain", torch.nn.Parameter(torch.zeros(())))
        return model

    @contextlib.contextmanager
    def attach(self, model, family):
        gain = decoder(model).gain
        layers = dict(enumerate(ffn_layers(model)))
        with Tap(root=decoder(model), layers=layers, edit=lambda k, _: k * (1 + gain)) as tap:
            yield tap

    def export(self, model, path, **options):
        self.found = decoder(model).gain.item()
        with torch.no_grad():
            for down_proj in ffn_layers(model):
                down_proj.weight.mul_(1 + self.found)
        del decoder(model).gain
        super().export(model, path, **options)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_method_may_add_parameters(tiny_models, tmp_path, adapter):
    """`prepare` sees the model with the adapter, what it adds is trained, `export` folds it into a plain checkpoint."""
    method = Extra()
    train(tiny_models["llama"], tmp_path, method, LORA.model_copy(update={"adapter": adapter}))
    assert method.found != 0
    base = load_file(tiny_models["llama"] / "model.safetensors")
    assert weights(tmp_path).keys() == base.keys()
    load_model(tmp_path / "weights", dtype="float32")


def test_targets_that_no_module_has(tiny_models, tmp_path):
    config = LORA.model_copy(update={"lora": LoraSettings(targets=("q_project",))})
    with pytest.raises(UserError, match=r"train\.lora\.targets=\('q_project',\): Target modules"):
        train(tiny_models["llama"], tmp_path, METHODS.get("sft").configure({}), config)


def test_adapter_in_a_grid():
    grid = load_grid("laptop", overrides=["train.adapter=lora", "train.lora.rank=8"])
    assert grid.train.identity_dict()["lora"]["rank"] == 8
    assert grid.train.identity_dict() != load_grid("laptop").train.identity_dict()
    with pytest.raises(UserError, match=r"train\.adapter"):
        load_grid("laptop", overrides=["train.adapter=prefix"])
    with pytest.raises(UserError, match=r"train\.lora\.rank"):
        load_grid("laptop", overrides=["train.adapter=lora", "train.lora.rank=0"])
