"""A network in forms that need nothing of ours: ONNX and torch.export, each compared with the network itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from prune_env.common.errors import ExportError

CLOSE = 1e-4
"""Largest difference from the network's own outputs, as a share of the largest of these, in float32."""

Run = Callable[[Tensor], Tensor]
"""An exported network: images in, scores out."""


def export_program(model: nn.Module, images: Tensor, path: Path) -> Run:
    """Writes a network by `torch.export`; plain torch loads and runs it.

    Args:
        model: The network, in eval mode, on the CPU.
        images: Two images or more [N, C, H, W]; the exported network takes any number of this size.
        path: The file to write, by convention ``.pt2``.

    Returns:
        The network as it is loaded again.

    Raises:
        ExportError: If the network cannot be exported.
    """
    try:
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        # Somebody's images, and paths of this machine, are nobody's business.
        program.example_inputs = None
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path)
    except Exception as error:  # the user's own code may raise anything
        raise ExportError(f"torch.export refuses the network: {_first_line(error)}") from error
    loaded: Run = torch.export.load(path).module()
    return loaded


def export_onnx(model: nn.Module, images: Tensor, path: Path) -> Run:
    """Writes a network as ONNX; its input is called ``images``, its output ``scores``.

    Args:
        model: The network, in eval mode, on the CPU.
        images: As `export_program`.
        path: The file to write.

    Returns:
        The network as ONNX Runtime runs it, with as many threads as torch.

    Raises:
        ExportError: If what it takes is not installed, or the network has an operator that ONNX does not know.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ExportError(f"ONNX needs {error.name}, which is not installed: pip install 'prune-env[onnx]'") from error
    try:
        program = torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"ONNX has no form for the network: {_cause(error)}") from error
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # paths of this machine among them
    program.save(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # both raise errors of their own
        raise ExportError(f"ONNX Runtime cannot run the network: {_first_line(error)}") from error
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


EXPORTERS: Mapping[str, tuple[str, Callable[[nn.Module, Tensor, Path], Run]]] = MappingProxyType(
    {"onnx": ("model.onnx", export_onnx), "torch-export": ("model.pt2", export_program)}
)
"""By the names that ``--to`` takes: the file's name, and what writes it."""


def difference(model: nn.Module, exported: Run, images: Tensor) -> float:
    """How far an exported network's outputs are from the network's, as a share of the largest of these.

    Args:
        model: The network, in eval mode, on the CPU.
        exported: What was exported.
        images: Images [N, C, H, W]; taken whole, one by one and but the last, so that the batch is not fixed.

    Raises:
        ExportError: If it is more than `CLOSE`.
    """
    found = []
    with torch.inference_mode():
        for part in (images, images[:1], images[:-1]):
            wanted = model(part)
            found.append((exported(part) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    worst = float(torch.stack(found).max())
    if not worst <= CLOSE:  # nan is not either
        raise ExportError(
            f"The exported network's outputs are {worst:.2g} of the largest away from the network's, more than "
            f"{CLOSE:g}. It is not written."
        )
    return worst


def _cause(error: BaseException) -> str:
    """The first words of what lies at the bottom of a chain of errors; it names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no more is said'}"
