"""The cores that a process may use: its mask, its control groups, and what it was told."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from cgroups import process_in, real_group
from rrtn.runtime.system.cpus import (
    cpu_kind,
    cpu_quota,
    has_bf16,
    has_vnni,
    usable_cpus,
    vector_extension,
)

COUNT = "from rrtn.runtime.system.cpus import usable_cpus; print(usable_cpus())"


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


def test_n16_a_real_quota_counts() -> None:
    """One core's time, on a machine that has more."""
    with real_group("cpu", "cpu.cfs_quota_us", 100_000) as group:
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')"
        command = [sys.executable, "-c", f"{join}; {COUNT}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "1\n"


def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr("rrtn.runtime.system.cpus._CPUINFO", tmp_path / "cpuinfo")


X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx avx2 {more}
bugs\t\t: spectre_v1

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm bf16 sve\nCPU part\t: 0xd40\n"


def test_what_makes_another_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo(monkeypatch, tmp_path, X86.format(more="avx512f avx512_vnni clflush"))
    more = cpu_kind()
    assert more == {
        "cpu": "AMD EPYC",
        "family": "26 2",
        "instructions": "avx avx2 avx512f avx512_vnni",
    }
    assert (vector_extension(), has_vnni(), has_bf16()) == ("avx512f", True, False)

    cpuinfo(monkeypatch, tmp_path, X86.format(more="clflush"))
    assert cpu_kind() == more | {"instructions": "avx avx2"}
    assert (vector_extension(), has_vnni(), has_bf16()) == ("avx2", False, False)


def test_a_processor_of_arm_and_a_system_that_does_not_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo(monkeypatch, tmp_path, ARM)
    assert cpu_kind() == {
        "cpu": platform.processor(),
        "family": "",
        "instructions": "asimddp i8mm bf16 sve",
    }
    assert vector_extension() == platform.machine()
    monkeypatch.setattr("rrtn.runtime.system.cpus._CPUINFO", tmp_path / "none")
    assert cpu_kind() == {"cpu": platform.processor(), "family": "", "instructions": ""}
