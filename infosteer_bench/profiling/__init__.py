"""What each method costs here, as ratios to plain fine-tuning.

Needs torch, transformers and pydantic only, so that it runs on a bare GPU machine: random weights of true widths.
"""
