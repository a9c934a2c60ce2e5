"""What each method costs here, as ratios to plain fine-tuning (floor 5).

Needs torch, transformers and pydantic only, so that it runs on a bare GPU machine: random weights of true widths.
"""
