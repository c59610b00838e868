"""A spec read from plain values: completed, checked, and refused before it takes memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlalgo import DataSpec
from rlalgo.core.spaces import described
from rlalgo.errors import DataError

SPEC = DataSpec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
BOX = {"type": "Box", "low": 0, "high": 1, "shape": [3], "dtype": "float32"}


def test_what_is_lacking_has_its_default() -> None:
    values = SPEC.to_mapping()
    assert DataSpec.from_mapping({key: values[key] for key in ("observation_space", "action_space")}) == SPEC


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frame_stack": "x"}, "frame_stack"),
        ({"frame_stack": -1}, "frame_stack"),
        ({"frame_stack": 10**8}, "frame_stack"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": 10**30}, "max_steps"),
        ({"env_id": 3}, "env_id"),
        ({"ref_scores": [1]}, "ref_scores"),
        ({"ref_scores": [1, 1]}, "ref_scores"),
        ({"preprocess": []}, "preprocess"),
        ({"action_space": None}, "action_space"),
        ({"action_space": {"type": ["Box"]}}, "action_space"),
        ({"action_space": {"type": "Text"}}, "fixed size"),
        ({"action_space": {"type": "Discrete", "n": 0}}, "action_space"),
        ({"action_space": {"type": "Discrete", "n": 10**30}}, "claims 1,000,000,"),
        ({"action_space": {"type": "Discrete", "n": 2, "start": 10**40}}, "action_space"),
        ({"action_space": {"type": "MultiDiscrete", "nvec": [2, -(10**20)]}}, "action_space"),
        ({"observation_space": {**BOX, "shape": [10**6, 10**6]}}, "claims 1,000,000,000,000 numbers"),
        ({"observation_space": {**BOX, "shape": [-3]}}, "observation_space"),
        ({"observation_space": {**BOX, "dtype": "U999999999"}}, "observation_space"),
        ({"observation_space": {**BOX, "dtype": "object"}}, "expected numbers"),
        ({"observation_space": {**BOX, "low": [1, 2]}}, "observation_space"),
        ({"observation_space": {**BOX, "low": float("nan")}}, "observation_space"),
        ({"observation_space": {"type": "Tuple", "subspaces": [{**BOX, "shape": [2**20]}] * 64}}, "claims 67,108,864"),
        ({"observation_space": {"type": "Dict", "subspaces": 3}}, "observation_space"),
    ],
)
def test_what_describes_no_data_is_refused_by_its_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        DataSpec.from_mapping({**SPEC.to_mapping(), **changes})


@pytest.mark.parametrize("values", [None, [], 3, {}])
def test_no_mapping_is_no_spec(values: Any) -> None:
    with pytest.raises(DataError, match="spec: "):
        DataSpec.from_mapping(values)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(-1, 2, (3, 2), np.float32), "Box of 3x2 float32, -1 to 2"),
        (spaces.Box(-1, 2, (), np.float32), "Box of one float32, -1 to 2"),
        (spaces.Box(-1, 2, (0,), np.float32), "Box of 0 float32"),
    ],
)
def test_a_space_is_described_in_a_line(space: spaces.Space, words: str) -> None:
    assert described(space) == words
