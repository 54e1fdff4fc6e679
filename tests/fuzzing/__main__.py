"""`make fuzz`: reads many mutants of every format, and prints how many were refused, right or failed."""

import argparse
import faulthandler
import sys
import tempfile
from pathlib import Path

import torch

from fuzzing.formats import FORMATS
from fuzzing.harness import fuzz, table_of


def main() -> int:
    """Returns 1 if a mutant failed; the first mutant of each failure is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000, help="of all formats together [20000]")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other mutants [0]")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for mutants that failed")
    parser.add_argument("formats", nargs="*", help=f"of: {', '.join(FORMATS)} [all]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(given.formats or list(FORMATS), given.mutants, given.seed, Path(folder))
    print(table_of(counts))
    for name, found in counts.items():
        for number, (words, data) in enumerate(found.first.items()):
            given.keep.mkdir(exist_ok=True)
            place = given.keep / f"{name}-{given.seed}-{number}"
            place.write_bytes(data)
            print(f"{name}: {found.failed[words]} times {words} (the first: {place})")
    return int(any(found.failed for found in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
