"""The graph that is exported: raw observations and memory in, the environment's own actions and memory out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlalgo import DataSpec
from rlalgo.core.policy import Acting
from rlalgo.core.spaces import stack_frames
from rlutils.data.preparation import read_record
from rlutils.exporting.views import View, views


class Graph(nn.Module):
    """All of a policy that is a pure function: frames prepared and stacked, normalized, acted on, actions in raw units.

    Tensors in and out are in the order of `inputs` and `outputs`, m rows each.

    Args:
        acting: the policy.
        spec: of the data that it was trained on.
    """

    def __init__(self, acting: Acting, spec: DataSpec) -> None:
        super().__init__()
        self.acting, self.k = acting, spec.frame_stack
        self.views, self.joined = views(spec)
        self.prepare = nn.ModuleList(view.module for view in self.views)
        original: Any = read_record(spec.preprocess).actions
        self.action_space: Any = spec.action_space if original is None else original
        """The environment's."""
        self.flattened = original is not None
        """Whether the data's actions are of another form."""
        if original is not None:
            sizes = getattr(original, "nvec", np.full(original.shape, 2)).reshape(-1)  # MultiBinary has none
            self.sizes = torch.from_numpy(sizes.astype(np.int64))  # (M,)
            self.worth = torch.cat([self.sizes[1:].flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.int64)])
            self.start = torch.as_tensor(getattr(original, "start", 0), dtype=torch.int64)
        self.memory = dict(acting.memory)
        if self.k > 1:
            self.memory |= {f"frames{view.name and '/'}{view.name}": self._blank(view) for view in self.views}
        asks = acting.target_return is not None
        self.inputs = [self.input(view) for view in self.views]
        self.inputs += ["step"] if asks or self.memory else []
        self.inputs += ["return_to_go"] if asks else []
        self.inputs += [f"memory/{name}" for name in self.memory]
        self.outputs = ["action", *(f"next/{name}" for name in self.memory)]

    @staticmethod
    def input(view: View) -> str:
        """What a part of the observation is called among the inputs."""
        return f"observation{view.name and '/'}{view.name}"

    def _blank(self, view: View) -> Tensor:
        """Zeros in the place of the k - 1 frames before the present one."""
        example = view.module(example_of(view, 1))
        return example.new_zeros((self.k - 1, *example.shape[1:]))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, values, strict=True))
        step = given.get("step", torch.zeros(0))
        memory = {name: given[f"memory/{name}"] for name in self.memory}
        parts = {}
        for view, prepare in zip(self.views, self.prepare, strict=True):
            x = prepare(given[self.input(view)])
            name = f"frames{view.name and '/'}{view.name}"
            if name in memory:
                now, fresh = x.unsqueeze(1), (step == 0).view(-1, *(1,) * x.dim())
                frames = torch.cat([torch.where(fresh, now, memory[name]), now], 1)  # the first one repeats
                x, memory[name] = stack_frames(frames, x.shape[1:]), frames[:, 1:]
            parts[view.name] = x
        seen: Any = torch.cat(list(parts.values()), -1) if self.joined else parts.get("", parts)
        own = {name: memory[name] for name in self.acting.memory}
        actions, after = self.acting(seen, step, given.get("return_to_go", step), own)
        memory |= after
        return (self._raw(actions), *memory.values())

    def _raw(self, actions: Tensor) -> Tensor:
        """As `rlutils.data.spaces.unflatten_action`, for m actions."""
        if not self.flattened:
            return actions
        if actions.dim() == 1:
            actions = actions.unsqueeze(1).div(self.worth, rounding_mode="floor") % self.sizes
        return actions.view(-1, *self.action_space.shape) + self.start


def example_of(view: View, m: int) -> Tensor:
    """m values of a part of the observation, as the graph takes them."""
    shape = (m, *(32 + axis if size is None else size for axis, size in enumerate(view.shape)))
    return torch.zeros(shape, dtype=getattr(torch, view.kind))
