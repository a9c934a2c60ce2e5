"""Plain fine-tuning with the input embeddings frozen."""

from infosteer_bench import Method


class FrozenEmbeddings(Method):
    name = "sft-frozen-embeddings"
    summary = "plain fine-tuning with the input embeddings frozen"

    def prepare(self, model, family):
        model.get_input_embeddings().requires_grad_(False)
        return model


METHOD = FrozenEmbeddings
