"""Evaluation: checkpoints answer lm-eval tasks, through transformers (`hf`) or vLLM (`vllm`).

    engine = make_engine("hf", eval_config=EvalConfig(dtype="float32"))
    engine.load(checkpoint, weight_digest=digest, runtime=None)
    result = evaluate_task(engine, tasks["boolq"], eval_config=..., prompt=..., data_root=None)
    engine.close()

The heavy libraries are imported only when an engine is made.
"""

from infosteer_bench.evaluation.engine import Engine, choose_backend, make_engine
from infosteer_bench.evaluation.generation import Generation

__all__ = ["Engine", "Generation", "choose_backend", "make_engine"]
