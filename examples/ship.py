"""Save a pruned network, apply its plan to the architecture, and load it with torch alone.

`python examples/ship.py FOLDER` leaves the files in a folder.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from own_model import my_data, my_network, train_it
from safetensors.torch import load_file

import prune_env
from prune_env import PruningPlan


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model, (train, test) = my_network(), my_data()
    train_it(model, train)
    result = prune_env.prune(model, train, test, keep=0.5, evaluations=20, finetune_epochs=2)

    # A plan and weights: data, no code. They fit any instance of the architecture.
    run = result.save(folder / "pruned")
    files = run / "export-safetensors"
    small = PruningPlan.load(files / "plan.json").apply(my_network()).eval()
    small.load_state_dict(load_file(files / "weights.safetensors"))

    # A program of torch: runs without prune-env and without the network's source.
    images, _ = next(iter(test))
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(result.model, (images,), dynamic_shapes=({0: batch},)), folder / "small.pt2")
    program = torch.export.load(folder / "small.pt2").module()

    with torch.no_grad():
        expected = result.model(images)
        print(f"from plan and weights: largest difference {(small(images) - expected).abs().max():.1e}")
        print(f"from small.pt2: largest difference {(program(images) - expected).abs().max():.1e}")
    (folder / "report.html").write_text(result.report().html, encoding="utf-8")
    print(f"written: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as temporary:
            main(Path(temporary))
