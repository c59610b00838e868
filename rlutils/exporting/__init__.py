"""A trained policy as a folder that plays without rlalgo: a graph (ONNX, TorchScript, torch.export) and its runner."""
