"""The contracts: Episodes, Dataset, BatchRLAlgo, Trainer, Policy and rollout."""
