"""DTPolicy: the last K steps of every row, and a return-to-go that falls with each reward; dt_play."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium

from rlalgo.core.episodes import Episodes
from rlalgo.core.rollout import rollout

if TYPE_CHECKING:
    from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer


def dt_play(
    env: gymnasium.Env, algo: DecisionTransformer, target_return: float, episodes: int = 10, seed: int = 0
) -> Episodes:
    """Plays a Decision Transformer in one environment, asking for `target_return` (raw reward units).

    Args:
        env: any environment with the spaces of the training data; raw observations, no wrappers needed.
        algo: a trained Decision Transformer.
        target_return: the return asked for in each episode.
        episodes: how many to play.
        seed: episode k is reset with `seed + k`.
    """
    options = [algo.PolicyConfig(target_return=target_return)]
    return rollout(algo.policy(options), [env], episodes, seed)
