"""The cores that a process may use: its mask, its control groups, and what it was told."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rrtn.runtime.system.cpus import cpu_quota, usable_cpus

V1 = Path("/sys/fs/cgroup/cpu")
COUNT = "from rrtn.runtime.system.cpus import usable_cpus; print(usable_cpus())"


def process_in(tmp_path: Path, groups: dict[str, str], *, cgroup: str, mount: str) -> Path:
    """A /proc/self of a process in `cgroup`; `groups` are files below the mount point."""
    proc, point = tmp_path / "proc", tmp_path / "mount"
    proc.mkdir()
    for name, content in groups.items():
        (point / name).parent.mkdir(parents=True, exist_ok=True)
        (point / name).write_text(content)
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(f"22 1 0:5 / / rw - ext4 /dev/sda rw\n{mount.format(point)}\n")
    return proc


V2 = "31 23 0:28 / {} rw,relatime shared:4 - cgroup2 cgroup2 rw"
V1_CPU = "32 31 0:29 {root} {{}} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", None),
        ("", None),
    ],
)
def test_n16_the_quota_of_a_group_of_version_2(tmp_path: Path, quota: str, cores: int | None) -> None:
    proc = process_in(tmp_path, {"job/cpu.max": quota}, cgroup="0::/job\n", mount=V2)
    assert cpu_quota(proc) == cores


def test_n16_the_smallest_quota_above_counts(tmp_path: Path) -> None:
    groups = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "400000 100000"}
    assert cpu_quota(process_in(tmp_path, groups, cgroup="0::/a/b/c\n", mount=V2)) == 3


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [("/", "/job", "job/"), ("/docker/abc", "/docker/abc", ""), ("/docker/abc", "/docker/abc/x", "x/")],
)
def test_n16_the_quota_of_a_group_of_version_1(tmp_path: Path, root: str, path: str, folder: str) -> None:
    """In a container the mount shows the container's group as its top."""
    groups = {f"{folder}cpu.cfs_quota_us": "250000\n", f"{folder}cpu.cfs_period_us": "100000\n"}
    cgroup = f"9:memory:/elsewhere\n1:cpu,cpuacct:{path}\n0::/\n"
    assert cpu_quota(process_in(tmp_path, groups, cgroup=cgroup, mount=V1_CPU.format(root=root))) == 3


def test_n16_no_limit_and_no_control_groups(tmp_path: Path) -> None:
    groups = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}
    assert cpu_quota(process_in(tmp_path, groups, cgroup="1:cpu:/\n", mount=V1_CPU.format(root="/"))) is None
    assert cpu_quota(tmp_path / "nowhere") is None
    (tmp_path / "proc/cgroup").write_text("nonsense\n")
    assert cpu_quota(tmp_path / "proc") is None


@pytest.mark.parametrize(
    ("value", "most"),
    [("1", 1), ("1,4", 1), (" 1 ", 1), ("0", None), ("many", None), ("", None), ("-1", None)],
)
def test_n16_omp_num_threads_is_a_limit(
    value: str, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    without = usable_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert usable_cpus() == (most or without)
    monkeypatch.setenv("OMP_NUM_THREADS", "10000")
    assert usable_cpus() == without


def test_n16_what_torchrun_sets_by_itself_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    without = usable_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert usable_cpus() == without


@contextlib.contextmanager
def real_group() -> Iterator[Path]:
    group = V1 / f"rrtn-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        pytest.skip(f"no control group of the test's own: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def test_n16_a_real_quota_counts() -> None:
    """One core's time, on a machine that has more."""
    with real_group() as group:
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
        command = [sys.executable, "-c", f"{join}; {COUNT}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"
