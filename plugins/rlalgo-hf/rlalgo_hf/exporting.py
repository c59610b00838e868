"""`rlalgo export-hf`: a checkpoint of transformers' DecisionTransformerModel, with its model card."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch

from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlalgo.batchrl.dt.hugging_face import to_hugging_face
from rlalgo.config import to_mapping
from rlalgo.errors import CheckpointError
from rlalgo.version import __version__
from rlalgo_hf.card import films, model_card
from rlalgo_hf.reading import OWN, Own
from rlutils.checkpoints.loading import load_algo, run_folder, run_settings
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue
from rlutils.config.files import whole_folder, write_json, write_yaml

WRITTEN = {"config.json", "model.safetensors", "README.md", OWN, "replay.mp4", "replay.gif"}
OTHERWISE = "`rlalgo push` carries whole runs of every algorithm, and `rlalgo export` writes policies as ONNX"


def export_hf(
    run: str | Path,
    folder: str | Path,
    checkpoint: str = "last",
    replace: bool = False,
    plugins: Sequence[str] = (),
) -> Path:
    """Writes config.json, model.safetensors, a card, the run's film if there is one, and what `import-hf` needs.

    Args:
        run: the run folder, or one of its checkpoints.
        folder: to write; whole, or not at all.
        checkpoint: `last`, `best` or `step_N`.
        replace: a folder that was exported before.
        plugins: modules and files that the run was trained with.

    Raises:
        CheckpointError: it is none that transformers can be, something is in the way, or it cannot be written.
    """
    found, run, folder = find(Path(run), checkpoint), run_folder(Path(run)), Path(folder)
    _refuse_taken(folder, replace)
    algo, choice = load_algo(found, catalogue(plugins))
    if type(algo) is not DecisionTransformer:
        raise CheckpointError(f"{found}: {algo.name} is no DecisionTransformerModel of transformers; {OTHERWISE}")
    settings, _ = run_settings(run, plugins)
    try:
        config, weights = to_hugging_face(algo)
    except CheckpointError as error:
        raise CheckpointError(f"{found}: {error}; {OTHERWISE}") from error
    own = Own(
        {**to_mapping(settings), "algo": to_mapping(choice), "plugins": []},
        algo.spec,
        algo.normalizer.mean.tolist(),
        algo.normalizer.std.tolist(),
        algo.scaler.center.tolist(),
        algo.scaler.radius.tolist(),
        float(algo.best_return),
        __version__,
    )
    try:
        with whole_folder(folder) as new:
            write_json(new / "config.json", config)
            (new / "model.safetensors").write_bytes(safetensors.torch.save(weights, {"format": "pt"}))
            write_yaml(new / OWN, {**vars(own), "spec": own.spec.to_mapping()})
            for film in films(run)[:1]:
                shutil.copyfile(film, new / f"replay{film.suffix}")
            (new / "README.md").write_text(model_card(run, found.name, exported=own), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def _refuse_taken(folder: Path, replace: bool) -> None:
    """CheckpointError for what is no earlier export, or holds more than one, such as the .git of a clone."""
    if not folder.exists():
        return
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if there and not (replace and OWN in there):
        raise CheckpointError(f"{folder} exists; choose another, or replace an earlier export with --replace")
    if others := sorted(there - WRITTEN):
        what = ", ".join(others[:3])
        raise CheckpointError(f"{folder} holds what no export wrote ({what}); choose another, or move that elsewhere")
