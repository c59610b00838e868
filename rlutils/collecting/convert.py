"""The data of any source, written in another format: a Minari dataset, arrays (npz) or the hub's layout (Parquet)."""

import dataclasses
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from rlalgo import DataSpec, Episodes
from rlalgo.errors import DataError, RlalgoWarning, blaming
from rlutils.collecting.minari_writer import Said, new_dataset, write_minari
from rlutils.collecting.settings import check_id
from rlutils.data.minari_file import NO_FACTS
from rlutils.data.preparation import read_record
from rlutils.data.writers import write_hf, write_npz

FORMATS = ("minari", "npz", "hf")
"""Sources that what is written here is for."""


class UnknownEnvironment(RlalgoWarning):
    """A dataset is written without its environment, which is not registered here."""


def convert(episodes: Episodes, label: str, to: str, out: str, replace: bool = False) -> Path:
    """Writes episodes so that the source `to` gives them again, bit for bit.

    Args:
        episodes: of any source.
        label: how messages call them.
        to: one of `FORMATS`.
        out: the id of the Minari dataset to make, or the file.
        replace: what is there under that name.

    Returns:
        Where it is.

    Raises:
        DataError: something is there already, the format cannot hold the data, or it cannot be written.
    """
    if to == "minari":
        return _to_minari(episodes, label, out, replace)
    path, ending = Path(out), {"npz": ".npz", "hf": ".parquet"}[to]
    if path.suffix != ending:
        raise DataError(f"--out {path}: the name of such a file ends in {ending}")
    if path.exists() and not replace:
        raise DataError(f"{path} exists; replace it with --replace, or choose another --out")
    (write_npz if to == "npz" else write_hf)(episodes, path)
    return path


def _to_minari(episodes: Episodes, label: str, ident: str, replace: bool) -> Path:
    spec, record = episodes.spec, read_record(episodes.spec.preprocess)
    if record.flatten or record.images or record.actions or spec.frame_stack > 1:
        why = "its observations or actions are prepared, which a Minari dataset would not say"
        raise DataError(f"{label}: {why}; write `--to npz` or `--to hf`")
    try:
        check_id(ident)
    except ValueError as error:
        raise DataError(f"--out: {error}") from error
    with new_dataset(ident, replace) as write:
        facts = [
            {name: column[i].numpy() for name, column in episodes.info.items() if name not in NO_FACTS}
            for i in range(len(episodes))
        ]
        size = episodes.observations.nbytes + 64 * episodes.steps
        spaces = spec.observation_space, spec.action_space
        said = Said("unknown", f"converted from {label}", ref_scores=spec.ref_scores)
        fill = partial(write_minari, ident=ident, buffers=_buffers(episodes), metadata=facts, size=size)
        return write(partial(fill, of=spaces, env=_env(spec, label), said=said))


def _buffers(episodes: Episodes) -> Iterator[Any]:
    """Minari's buffers, made when they are asked for."""
    from minari.data_collector import EpisodeBuffer

    starts, rows = episodes.starts.tolist(), episodes.first_rows().tolist()
    for number, (first, end) in enumerate(pairwise(starts)):
        seen = end - first + int(episodes.has_final[number])
        yield EpisodeBuffer(
            id=number,
            observations=episodes.observations[rows[number] : rows[number] + seen].numpy(),
            actions=episodes.actions[first:end].numpy(),
            rewards=episodes.rewards[first:end].numpy(),
            terminations=episodes.terminations[first:end].numpy(),
            truncations=episodes.truncations[first:end].numpy(),
        )


def _env(spec: DataSpec, label: str) -> EnvSpec | None:
    """The environment of the data with the arguments, time limit and wrappers that it was recorded with."""
    record, known = read_record(spec.preprocess), gymnasium.registry.get(spec.env_id or "")
    if known is None:
        if spec.env_id:
            why = "is not registered here, so the dataset does not say which environment it is of"
            warnings.warn(f"{label}: {spec.env_id} {why}", UnknownEnvironment, stacklevel=2)
        return None
    kwargs = {**known.kwargs, **record.env_kwargs}
    limit = kwargs.pop("max_episode_steps", known.max_episode_steps)
    with blaming(DataError, f"{label}: the wrappers of {spec.env_id} are not understood"):
        wrappers = tuple(WrapperSpec(**wrapper) for wrapper in record.env_wrappers)
    return dataclasses.replace(known, kwargs=kwargs, max_episode_steps=limit, additional_wrappers=wrappers)
