"""Exporters to files that run without this library (ONNX, torch.export), and the check of their outputs."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ExportError
from prune_env.common.files import atomic_write, naming
from prune_env.common.nested import tensors_of

CLOSE = 1e-4
"""Largest allowed difference from the network's outputs, relative to its largest output, in float32."""

Run = Callable[[Tensor], Any]
"""An exported network: a function from images to the network's output."""


def export_program(model: nn.Module, images: Tensor, path: Path, outputs: Sequence[str] = ()) -> Run:  # noqa: ARG001
    """Writes a network by `torch.export`; torch alone can load and run the file.

    Args:
        model: The network, in eval mode, on the CPU.
        images: Two images or more [N, C, H, W]; the exported network accepts any number of images of this size.
        path: The file to write, by convention ``.pt2``.
        outputs: Not used: the outputs have no names.

    Returns:
        The network, loaded from the file.

    Raises:
        ExportError: If the network cannot be exported.
    """
    try:
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        # Remove private data from the file: the example images and the paths of this machine.
        program.example_inputs = None
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        content = BytesIO()
        torch.export.save(program, content)
    except Exception as error:  # the user's own code may raise anything
        raise ExportError(f"torch.export refuses the network: {_first_line(error)}") from error
    atomic_write(path, content.getvalue())
    loaded: Run = torch.export.load(path).module()
    return loaded


def export_onnx(model: nn.Module, images: Tensor, path: Path, outputs: Sequence[str] = ("scores",)) -> Run:
    """Writes a network as ONNX, with the input ``images``.

    Args:
        model: The network, in eval mode, on the CPU.
        images: As `export_program`.
        path: The file to write.
        outputs: Names of the first outputs.

    Returns:
        The network in ONNX Runtime, with the same number of threads as torch.

    Raises:
        ExportError: If a package is missing, or ONNX does not support an operator of the network.
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
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"ONNX cannot represent the network: {_cause(error)}") from error
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # the metadata contain paths of this machine
    with naming(path):
        program.save(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # both packages raise their own error types
        raise ExportError(f"ONNX Runtime cannot run the network: {_first_line(error)}") from error

    def run(images: Tensor) -> Any:
        outputs = [torch.from_numpy(values) for values in session.run(None, {"images": images.numpy()})]
        return outputs if len(outputs) > 1 else outputs[0]

    return run


Exporter = Callable[[nn.Module, Tensor, Path, Sequence[str]], Run]
"""Writes a network into a file and loads it again, given images, the file and the names of the outputs."""

EXPORTERS: Mapping[str, tuple[str, Exporter]] = MappingProxyType(
    {"onnx": ("model.onnx", export_onnx), "torch-export": ("model.pt2", export_program)}
)
"""File name and exporter by the name that ``--to`` takes."""


def difference(model: nn.Module, exported: Run, images: Tensor) -> float:
    """The largest difference between the outputs of both networks, relative to the largest output.

    Args:
        model: The network, in eval mode, on the CPU.
        exported: The exported network.
        images: Images [N, C, H, W]; compared in batches of N, 1 and N - 1, to prove that the batch size is free.

    Raises:
        ExportError: If the difference is above `CLOSE`.
    """
    differences = []
    with torch.inference_mode():
        for part in (images, images[:1], images[:-1]):
            found, own = (tensors_of(_by_name(network(part)), others=False) for network in (exported, model))
            if [tensor.shape for tensor in found] != [tensor.shape for tensor in own]:
                raise ExportError(
                    "The exported network finds another number of objects than the network. The file is not written."
                )
            differences += [_relative(*pair) for pair in zip(found, own, strict=True) if pair[0].numel()]
    worst = float(torch.stack(differences).max())
    if not worst <= CLOSE:  # also refuses nan
        raise ExportError(
            f"The exported network's outputs differ from the network's by {worst:.2g} of the largest output; at most "
            f"{CLOSE:g} is allowed. The file is not written."
        )
    return worst


def _by_name(outputs: Any) -> Any:
    """Outputs whose mappings are in the order of their keys."""
    if isinstance(outputs, Mapping):
        return {key: _by_name(outputs[key]) for key in sorted(outputs, key=str)}
    return [_by_name(item) for item in outputs] if isinstance(outputs, (list, tuple)) else outputs


def _relative(found: Tensor, own: Tensor) -> Tensor:
    return (found - own).abs().max() / own.abs().max().clamp_min(1e-30)


def _cause(error: BaseException) -> str:
    """The first line of the first error in a chain of errors, which names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
