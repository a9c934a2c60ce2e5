"""Families: recognised by config, memory found by structure, under every wrapper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import FAMILY_NAMES

from infosteer_bench.errors import UserError
from infosteer_bench.models.families import FAMILIES, decoder, family_of, ffn_layers
from infosteer_bench.models.load import load_model


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def loaded(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[str, Path, torch.nn.Module]:
    path = tiny_models[request.param]
    return request.param, path, load_model(path, dtype="float32")


class _Wrapper(torch.nn.Module):
    """As DataParallel and DDP do: the model is the attribute `module`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **kwargs: torch.Tensor) -> object:
        return self.module(**kwargs)


def test_family_of_config_dict_and_object(loaded) -> None:
    name, path, model = loaded
    assert family_of(json.loads((path / "config.json").read_text())) is FAMILIES[name]
    assert family_of(model.config) is FAMILIES[name]
    assert family_of(type(model.config)()) is FAMILIES[name]  # a bare config, without `architectures`


@pytest.mark.parametrize("config", [{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, {}])
def test_unsupported_architecture_names_the_supported(config: dict) -> None:
    with pytest.raises(UserError, match=r"not supported.*Qwen2ForCausalLM.*Gemma3ForCausalLM"):
        family_of(config)


def test_classifier_of_a_supported_type_is_refused() -> None:
    with pytest.raises(UserError, match="LlamaForSequenceClassification"):
        family_of({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"})


def test_down_proj_of_each_layer_in_order(loaded) -> None:
    _, _, model = loaded
    layers = ffn_layers(model)
    assert [tuple(layer.weight.shape) for layer in layers] == [(64, 160)] * 2
    assert layers == [layer.mlp.down_proj for layer in model.model.layers]
    assert decoder(model) is model.model


def test_keys_enter_down_proj_and_the_decoder_runs_once(loaded) -> None:
    _, _, model = loaded
    shapes, runs = [], []
    handles = [
        layer.register_forward_pre_hook(lambda m, args: shapes.append(args[0].shape)) for layer in ffn_layers(model)
    ]
    handles.append(decoder(model).register_forward_pre_hook(lambda m, args: runs.append(1)))
    with torch.no_grad():
        model(input_ids=torch.arange(3, 10)[None])
    for handle in handles:
        handle.remove()
    assert shapes == [torch.Size([1, 7, 160])] * 2
    assert runs == [1]


def test_found_under_wrappers(loaded) -> None:
    _, _, model = loaded
    expected = ffn_layers(model)
    for wrapped in (_Wrapper(model), torch.nn.DataParallel(model), _Wrapper(_Wrapper(model)), torch.compile(model)):
        assert ffn_layers(wrapped) == expected
        assert decoder(wrapped) is model.model


def test_found_when_each_layer_is_wrapped(tiny_models: dict[str, Path]) -> None:
    model = load_model(tiny_models["qwen3"], dtype="float32")  # its own copy: the wrapping stays
    expected = ffn_layers(model)
    for index, layer in enumerate(model.model.layers):
        model.model.layers[index] = _Wrapper(layer)
    assert ffn_layers(model) == expected


def test_found_under_peft(tiny_models: dict[str, Path]) -> None:
    peft = pytest.importorskip("peft")
    for family in FAMILY_NAMES:
        for targets in (["down_proj", "q_proj"], ["q_proj"]):
            model = load_model(tiny_models[family], dtype="float32")
            plain = ffn_layers(model)
            config = peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
            found = ffn_layers(peft.get_peft_model(model, config))
            assert [getattr(layer, "base_layer", layer) for layer in found] == plain
            assert all(hasattr(layer, "lora_A") == ("down_proj" in targets) for layer in found)


def test_models_of_another_layout_are_refused() -> None:
    with pytest.raises(UserError, match="no decoder layers"):
        ffn_layers(torch.nn.Linear(2, 2))
    model = torch.nn.Module()
    model.embed_tokens, model.layers = torch.nn.Embedding(2, 2), torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(UserError, match="layer 0 of Module has 0 down_proj"):
        ffn_layers(model)
