"""The control groups of a process: by them containers, systemd and Slurm set limits on Linux."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc/self")


def control_groups(controller: str, proc: Path = PROC) -> Iterator[Path]:
    """The folders of the process's groups that may have a limit of `controller`: "cpu", "memory".

    Inner ones come first. They are of version 2, where a group has all its controllers, or of version 1.
    """
    with contextlib.suppress(OSError, ValueError):
        groups = dict(_groups(proc))
        for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            kind, *_, options = after.split()
            named = {"cgroup2": "", "cgroup": controller}.get(kind)
            if named not in groups or (named and named not in options.split(",")):
                continue
            root, mount = before.split()[3:5]
            inside = groups[named].removeprefix(root.rstrip("/")).strip("/")
            folder = Path(mount, inside)
            yield from (folder, *(above for above in folder.parents if above.is_relative_to(mount)))


def _groups(proc: Path) -> Iterator[tuple[str, str]]:
    """Controller and path of each control group; the controller of version 2 is "": it has them all."""
    for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path
