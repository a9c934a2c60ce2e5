"""One training path for all methods: TRL's SFTTrainer on Accelerate."""
