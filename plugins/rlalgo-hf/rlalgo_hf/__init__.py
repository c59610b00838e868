"""rlalgo and Hugging Face: checkpoints of transformers in and out, model cards, runs on the hub."""
