"""Parts that several algorithms share: layers, action heads, critics, actors, schedules."""

from rlalgo.nets.actors import Actor, ActorPolicy, Chooser
from rlalgo.nets.critics import Critics, DiscreteCritics, Ensemble, Target, expectile_loss
from rlalgo.nets.heads import (
    BoxHead,
    DiscreteHead,
    GaussianHead,
    SquashedGaussianHead,
    action_head,
    bounded_box,
)
from rlalgo.nets.layers import Normalizer, mlp, trunk
from rlalgo.nets.optim import Counter, decay_groups, masked_mean, warmup_cosine

__all__ = [
    "Actor",
    "ActorPolicy",
    "BoxHead",
    "Chooser",
    "Counter",
    "Critics",
    "DiscreteCritics",
    "DiscreteHead",
    "Ensemble",
    "GaussianHead",
    "Normalizer",
    "SquashedGaussianHead",
    "Target",
    "action_head",
    "bounded_box",
    "decay_groups",
    "expectile_loss",
    "masked_mean",
    "mlp",
    "trunk",
    "warmup_cosine",
]
