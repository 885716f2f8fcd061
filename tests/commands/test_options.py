"""What several commands share."""

import subprocess
import sys


def test_torch_takes_no_more_threads_than_this_process_may_keep_busy() -> None:
    """By itself it takes one for each core of the machine, whatever the quota of a container is."""
    code = """
from rrtn.runtime.system import cpus
cpus.usable_cpus = lambda: 1  # as in a container with a quota of one core
from rrtn.commands.options import load_torch
load_torch("train.config")
import torch
print(torch.get_num_threads())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split() == ["1"]
