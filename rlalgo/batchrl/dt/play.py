"""dt_play: a Decision Transformer in one environment."""

import gymnasium

from rlalgo import BatchRLAlgo, Episodes, rollout


def dt_play(env: gymnasium.Env, algo: BatchRLAlgo, target_return: float, episodes: int = 10, seed: int = 0) -> Episodes:
    """Plays a Decision Transformer in one environment, asking for `target_return` (raw reward units).

    Args:
        env: any environment with the spaces of the training data; `rlutils.prepare(env, algo.spec)` gives them to one
            whose observations were flattened, made gray or smaller for training.
        algo: a trained Decision Transformer.
        target_return: the return asked for in each episode.
        episodes: how many to play.
        seed: episode k is reset with `seed + k`.

    Raises:
        EnvironmentFault: the environment has other spaces, or breaks.
    """
    policy = algo.policy([algo.PolicyConfig(target_return=target_return)])
    return rollout(policy, [env], episodes, seed)
