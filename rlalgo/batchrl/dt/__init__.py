"""The Decision Transformer, under its original names too.

`DT_model` and `trajectory_gpt2` are modules, `rtgEpDataset` is the class RtgEpDataset, `dt_play` a function.
"""

from rlalgo.batchrl.dt import dt_model as DT_model
from rlalgo.batchrl.dt import trajectory_gpt2
from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlalgo.batchrl.dt.dt_model import DTModel
from rlalgo.batchrl.dt.hugging_face import from_hugging_face, to_hugging_face
from rlalgo.batchrl.dt.play import dt_play
from rlalgo.batchrl.dt.rtg_ep_dataset import RtgEpDataset
from rlalgo.batchrl.dt.rtg_ep_dataset import RtgEpDataset as rtgEpDataset
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2

__all__ = [
    "DTModel",
    "DT_model",
    "DecisionTransformer",
    "RtgEpDataset",
    "TrajectoryGPT2",
    "dt_play",
    "from_hugging_face",
    "rtgEpDataset",
    "to_hugging_face",
    "trajectory_gpt2",
]
