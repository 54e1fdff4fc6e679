"""A weights file in half precision, to be handed on: `python -m benchmarks.half_weights IN OUT`.

`model.weights` reads it like any other; the network then has float32 weights again. `prune-env inspect` measures it.
"""

import sys
from pathlib import Path

import safetensors.torch

from prune_env.common.files import atomic_write


def main(arguments: list[str]) -> None:
    """Converts the floating-point tensors of a file."""
    tensors = safetensors.torch.load_file(Path(arguments[0]))
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if lost := [name for name, tensor in halves.items() if not bool(tensor.isfinite().all())]:
        raise SystemExit(f"{lost[0]} holds values beyond half precision")
    atomic_write(Path(arguments[1]), safetensors.torch.save(halves))


if __name__ == "__main__":
    main(sys.argv[1:])
