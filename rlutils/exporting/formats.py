"""A graph as a file: ONNX, TorchScript, or a program of torch.export. Nothing of where it was made stays in it."""

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rlutils.exporting.graph import Graph, example_of


def onnx(graph: Graph, path: Path) -> None:
    """Weights of more than 2 GB, which is protobuf's limit, get a file of their own beside it."""
    names: dict[str, Any] = {"input_names": graph.inputs, "output_names": graph.outputs}
    made = torch.onnx.export(program(graph), dynamo=True, verbose=False, **names)
    assert made is not None
    for node in made.model.graph:
        node.metadata_props.clear()
    made.save(path)


def torchscript(graph: Graph, path: Path) -> None:
    """By tracing; frozen, so that what acting needs is all there is."""
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.freeze(torch.jit.trace(graph, examples(graph, 2))), buffer)
    with zipfile.ZipFile(buffer) as traced, zipfile.ZipFile(path, "w") as file:
        for entry in traced.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # names files of this machine
                file.writestr(entry, traced.read(entry))


def torch_export(graph: Graph, path: Path) -> None:
    """For `torch.export.load`."""
    torch.export.save(program(graph), path)


FORMATS = {"onnx": onnx, "torchscript": torchscript, "torch": torch_export}


def examples(graph: Graph, m: int) -> tuple[torch.Tensor, ...]:
    """What the graph takes, m rows, at the start of an episode."""
    values = {graph.input(view): example_of(view, m) for view in graph.views}
    values |= {"step": torch.zeros(m, dtype=torch.int64), "return_to_go": torch.zeros(m)}
    values |= {f"memory/{name}": zeros.expand(m, *zeros.shape).clone() for name, zeros in graph.memory.items()}
    return tuple(values[name] for name in graph.inputs)


def program(graph: Graph) -> torch.export.ExportedProgram:
    """By torch.export: any number of rows, images of any size if they are resized, no weights but those of acting."""
    rows, free = torch.export.Dim("rows"), torch.export.Dim.DYNAMIC
    shapes: list[Any] = [{0: rows} for _ in graph.inputs]
    for view, sizes in zip(graph.views, shapes, strict=False):
        sizes |= {axis: free for axis, size in enumerate(view.shape, 1) if size is None}
    with torch.no_grad():
        made = torch.export.export(graph, examples(graph, 2), dynamic_shapes={"values": tuple(shapes)})
    signature, places = made.graph_signature, {node.name: node for node in made.graph.nodes}
    for spec in [spec for spec in signature.input_specs if spec.target and not places[spec.arg.name].users]:
        made.graph.erase_node(places[spec.arg.name])
        signature.input_specs.remove(spec)
        for held in (made.state_dict, made.constants):
            held.pop(spec.target, None)
    made.graph_module.recompile()
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch tells of its own deprecations, of a missing torchvision, and that a network's sizes become constants."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)
