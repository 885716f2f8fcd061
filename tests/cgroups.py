"""Control groups for tests: files that look like those of a process, and a real group."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_V1 = Path("/sys/fs/cgroup")


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


@contextlib.contextmanager
def real_group(controller: str, limit: str, value: int) -> Iterator[Path]:
    """A group of version 1 with a limit. The test is skipped where there can be none."""
    group = _V1 / controller / f"rrtn-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(value))
    except OSError as error:
        pytest.skip(f"no control group of the test's own: {error}")
    try:
        yield group
    finally:
        latest = time.monotonic() + 60
        while (group / "cgroup.procs").read_text() and time.monotonic() < latest:
            time.sleep(0.05)  # decoders that are about to end
        group.rmdir()
