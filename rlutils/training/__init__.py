"""Training: batches to updates to checkpoints."""
