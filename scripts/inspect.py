"""`prune-env inspect`: the dry run. What can be cut, what it costs, what is protected and why, how long it takes."""

import importlib
import sys
from pathlib import Path

if __name__ == "inspect":
    # A command run as a file has this folder first on its path, where this file hides the standard library's module.
    sys.path.remove(str(Path(__file__).parent))
    del sys.modules["inspect"]
    importlib.import_module("inspect")
elif __name__ == "__main__":
    from scripts.common import run_command
    from scripts.inspect_walk import inspect_walk

    run_command(inspect_walk)
