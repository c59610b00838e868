"""Parts that several algorithms share: layers, action heads, critics, actors, schedules."""

from rlalgo.nets.actors import ActorPolicy, Chooser
from rlalgo.nets.critics import Critics, DiscreteCritics, Ensemble, Target, critics_for, expectile_loss
from rlalgo.nets.heads import (
    Categorical,
    Deterministic,
    DeterministicHead,
    DiscreteHead,
    Distribution,
    Gaussian,
    GaussianHead,
    MultiCategorical,
    MultiDiscreteHead,
    SquashedGaussian,
    SquashedGaussianHead,
    action_head,
)
from rlalgo.nets.layers import Flatten, Normalizer, OneHot, encoder, inputs, mlp, trunk
from rlalgo.nets.optim import decay_groups, masked_mean, warmup_cosine

__all__ = [
    "ActorPolicy",
    "Categorical",
    "Chooser",
    "Critics",
    "Deterministic",
    "DeterministicHead",
    "DiscreteCritics",
    "DiscreteHead",
    "Distribution",
    "Ensemble",
    "Flatten",
    "Gaussian",
    "GaussianHead",
    "MultiCategorical",
    "MultiDiscreteHead",
    "Normalizer",
    "OneHot",
    "SquashedGaussian",
    "SquashedGaussianHead",
    "Target",
    "action_head",
    "critics_for",
    "decay_groups",
    "encoder",
    "expectile_loss",
    "inputs",
    "masked_mean",
    "mlp",
    "trunk",
    "warmup_cosine",
]
