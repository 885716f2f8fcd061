"""The scoring process has a budget of memory, as its decoders have: row 26 of issue 16."""

import gc
import math
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cgroups import process_in, real_group
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.system.memory import MEMORY_BUDGET, limit_memory, memory_as_before, most_memory

# `rrtn`, and at its end the most memory that it had.
PROGRAM = """
import atexit, re, sys
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
atexit.register(lambda: print("peak", peak(), file=sys.stderr))
sys.argv[0] = "rrtn"
from rrtn.cli import main
main()
"""


def bomb(path: Path, spec: FrontendSpec, gibibytes: int) -> Path:
    """A model of a few hundred bytes whose scores are the mean of so much memory, and of its input."""
    nodes = [
        helper.make_node("ReduceMax", ["log_mel"], ["loudest"], keepdims=0),
        helper.make_node(
            "Greater", ["loudest", "never"], ["is_loud"]
        ),  # a size that no constant folding knows
        helper.make_node("Where", ["is_loud", "small", "large"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["much"]),
        helper.make_node("ReduceMean", ["much"], ["mean"], keepdims=0),
        helper.make_node("ReduceMax", ["log_mel", "axes"], ["highest"], keepdims=0),
        helper.make_node("Unsqueeze", ["highest", "last"], ["column"]),
        helper.make_node("Add", ["column", "mean"], ["scores"]),
    ]
    constants = {
        "never": np.float32(1e9),
        "small": np.array([1]),
        "large": np.array([gibibytes << 28]),
        "axes": np.array([1, 2, 3]),
        "last": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "bomb",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, 250, spec.n_mels])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata_of(("Peak",), spec, "logmel", "fp32"))
    onnx.checker.check_model(model)
    path.write_bytes(sealed(model.SerializeToString()))
    return path


@pytest.mark.parametrize(("gibibytes", "code"), [(1, 0), (8, 5)])
def test_n26_a_model_that_takes_more_than_the_budget_is_one_line(
    tmp_path: Path, spec: FrontendSpec, real_clips: list[Path], gibibytes: int, code: int
) -> None:
    arguments = [
        "score",
        real_clips[0],
        "-m",
        bomb(tmp_path / "bomb.onnx", spec, gibibytes),
        "--batch-size",
        1,
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(os.fspath, map(str, arguments))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *lines, last = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    peak = re.fullmatch(r"peak (\d+)", last)
    assert peak
    assert (gibibytes << 20 if not code else 0) < int(peak[1]) < MEMORY_BUDGET >> 10
    if code:
        assert lines[-1].startswith("rrtn: bomb.onnx on cpu, batch ")
        assert lines[-1].endswith("expected enough memory for this batch | use a smaller --batch-size")
        assert "Traceback" not in done.stderr


def test_n26_a_large_batch_takes_no_more_than_the_container_has(
    tmp_path: Path, spec: FrontendSpec, real_clips: list[Path]
) -> None:
    """Whose budget would be 36 GiB by the number of its clips: it is halved, and not killed."""
    model = bomb(tmp_path / "bomb.onnx", spec, 8)
    with real_group("memory", "memory.limit_in_bytes", 6 << 30) as group:
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
        arguments = ["score", real_clips[0], "-m", model, "--batch-size", 512]
        done = subprocess.run(
            [sys.executable, "-c", f"{join}\n{PROGRAM}", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 5, done.stderr
    assert "rrtn: bomb.onnx on cpu, batch (1, " in done.stderr


V2 = "31 23 0:28 / {} rw,relatime shared:4 - cgroup2 cgroup2 rw"
V1 = "32 31 0:29 / {} rw,relatime - cgroup cgroup rw,memory"
LIMITS = [
    ({}, "0::/\n", V2, 30),
    ({"a/memory.max": f"{16 << 30}\n", "a/b/memory.max": "max\n"}, "0::/a/b\n", V2, 12),
    ({"a/memory.limit_in_bytes": f"{20 << 30}\n"}, "3:memory:/a\n", V1, 15),
    ({"memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"}, "3:memory:/\n", V1, 30),
    ({"memory.max": f"{1 << 30}\n"}, "0::/\n", V2, 4),
]


@pytest.mark.parametrize(("groups", "cgroup", "mount", "gibibytes"), LIMITS)
def test_n26_three_quarters_of_what_is_left_and_never_less_than_the_budget(
    tmp_path: Path, groups: dict[str, str], cgroup: str, mount: str, gibibytes: int
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:  {40 << 20} kB\n")
    proc = process_in(tmp_path, groups, cgroup=cgroup, mount=mount)
    assert most_memory(proc, tmp_path / "meminfo") == gibibytes << 30


def test_n26_where_the_system_does_not_say_there_is_no_limit(tmp_path: Path) -> None:
    assert most_memory(tmp_path, tmp_path / "none") == math.inf


def test_a_lower_limit_of_the_user_stays_and_one_of_ours_may_grow() -> None:
    code = """
import resource
from rrtn.runtime.system.host import memory_in_use
from rrtn.runtime.system.memory import limit_memory, memory_as_before

def limits():
    return resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20

used = memory_in_use("data") >> 20
with memory_as_before():
    limit_memory(1 << 30, of="data")
    small = limits()
    limit_memory(2 << 30, of="data")
    print(small < used + 1100, limits() > small + 900)
resource.setrlimit(resource.RLIMIT_DATA, ((used + 500) << 20, resource.RLIM_INFINITY))
for _ in range(2):
    limit_memory(1 << 30, of="data")
    print(limits() == used + 500)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_n26_the_limit_goes_with_the_scoring() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    gc.collect()  # what earlier tests have left must not go while the limit stands
    with memory_as_before():
        limit_memory(MEMORY_BUDGET, of="data")
        with pytest.raises(MemoryError):
            np.empty(MEMORY_BUDGET + (1 << 30), np.uint8)
        limit_memory(2 * MEMORY_BUDGET, of="data")
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] > 2 * MEMORY_BUDGET
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
