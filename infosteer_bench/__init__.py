"""infosteer_bench: fine-tune with and without InfoSteer, evaluate on 15 tasks, compare honestly.

Importing this package imports neither torch nor transformers nor vllm nor pandas.
"""

__version__ = "0.1.0"
