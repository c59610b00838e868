"""README.md of an export."""

from rlutils.exporting.record import Exported
from rlutils.exporting.runtime import NAMES

_TEXT = """# A policy trained by {algorithm}{env}

Exported by rlalgo {rlalgo} as {format}. `policy.py` runs it and needs {needs}, and no rlalgo:

```python
from policy import Policy             # policy.py of this folder

policy = Policy(".")                  # Policy(".", rows=8) for eight environments side by side
policy.reset({target})
action = policy.act(observation){next}
```

`policy.json` says what goes in and comes out; `{file}` is the graph:

| input | type | shape |
| --- | --- | --- |
{inputs}

It takes the likeliest actions, draws nothing, and gives `action`, {action}{memory}
"""


def readme(about: Exported) -> str:
    """How to use the folder that `about` describes."""
    rows = [
        (part.name, part.dtype, ["m", *("any" if n is None else n for n in part.shape)]) for part in about.observations
    ]
    rows += [
        (name, kind, ["m"]) for name, kind in (("step", "int64"), ("return_to_go", "float32")) if name in about.inputs
    ]
    rows += [(f"memory/{part.name}", part.dtype, ["m", *part.shape]) for part in about.memory]
    sees = about.target_return is not None and about.sees_rewards
    again = "policy.act(observation, reward)  # later with the reward that the last action brought"
    return _TEXT.format(
        algorithm=about.algorithm,
        env=f" for {about.env_id}" if about.env_id else "",
        rlalgo=about.rlalgo,
        format=about.format,
        needs="numpy and onnxruntime" if about.format == "onnx" else "numpy and torch",
        target=f"target_return={about.target_return:g}" if about.target_return is not None else "",
        next=f"\naction = {again}" if sees else "",
        file=NAMES[about.format],
        inputs="\n".join(f"| `{name}` | {kind} | {' x '.join(map(str, shape))} |" for name, kind, shape in rows),
        action=" x ".join(map(str, ["m", *about.action.shape])) + f" {about.action.dtype}",
        memory=", then the memory, which is given back at the next step and is zero at an episode's start."
        * bool(about.memory)
        or ".",
    )
