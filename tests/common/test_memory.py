import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from prune_env.common.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
# The first turns find where aligned blocks fit; how many that takes depends on where the heap begins.
for turn in range(40):
    if turn == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del_me = torch.ones(32 * 2**20)
    del del_me
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_large_blocks_are_not_faulted_in_again():
    def faults(how):
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < faults("given back") / 10
