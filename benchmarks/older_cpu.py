"""Runs a command as on an older processor: no library sees AVX-512, or AMX.

    python benchmarks/older_cpu.py avx2 make test
    python benchmarks/older_cpu.py vnni python benchmarks/every_way.py

`avx2` hides AVX-512, AMX and AVX-VNNI. `vnni` hides AMX and products of bfloat16, and leaves AVX-512 VNNI.
ONNX Runtime, torch, OpenVINO, MNN and NumPy choose their code by the instruction CPUID, and have no common
switch. So that instruction is made to fault, and older_cpu.c answers it. What runs is real code at real
speed, of a processor with this clock and these caches; a machine that is old is slower in these as well.
It needs Linux on x86-64, a C compiler, and root or user namespaces for another /proc/cpuinfo. A processor
without CPUID faulting (`cpuid_fault` in /proc/cpuinfo) needs objdump, which reads each library once, when it
is first loaded: 5 seconds for ONNX Runtime, a minute and a half for torch.
Commands that clear the environment of their children let them see all.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
CPUINFO = Path("/proc/cpuinfo")
HIDDEN = {
    "avx2": ("avx512", "amx", "avx_vnni", "avx10"),
    "vnni": ("amx", "avx512_bf16", "avx512_fp16", "avx10"),
}
NAMES = {"avx2": "as with AVX2 alone", "vnni": "as without AMX"}


def missing() -> str:
    """What this machine lacks for it; "" where it can be done."""
    if not CPUINFO.exists() or platform.machine() != "x86_64":
        return "Linux on x86-64"
    for program in ("cc", "unshare", "mount", *(() if _cpuid_faults() else ("objdump",))):
        if not shutil.which(program):
            return f"the program {program}"
    done = subprocess.run(
        [*_namespace(), "mount", "--bind", CPUINFO, CPUINFO], check=False, capture_output=True
    )
    return "" if done.returncode == 0 else "the right to mount in a namespace of its own (root)"


def build(folder: Path) -> Path:
    """The library for LD_PRELOAD."""
    library = folder / "older_cpu.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-Wall", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def older_cpuinfo(text: str, kind: str) -> str:
    """/proc/cpuinfo without what is hidden; its model name says so."""
    hidden = "|".join(HIDDEN[kind])
    without = re.sub(rf" (?:{hidden})\w*(?= |$)", "", text, flags=re.MULTILINE)
    return re.sub(r"^(model name\t: .*)$", rf"\1, {NAMES[kind]}", without, flags=re.MULTILINE)


def run(kind: str, command: list[str]) -> int:
    """The command's exit status."""
    with tempfile.TemporaryDirectory() as made:
        cpuinfo, library = Path(made, "cpuinfo"), build(Path(made))
        cpuinfo.write_text(older_cpuinfo(CPUINFO.read_text(encoding="utf-8"), kind), encoding="utf-8")
        loaded = f'LD_PRELOAD="{library}"' + ("" if _cpuid_faults() else f' LD_AUDIT="{library}"')
        inside = f'mount --bind "{cpuinfo}" {CPUINFO} && {loaded} exec "$@"'
        environment = os.environ | {"OLDER_CPU": kind} | ({} if _cpuid_faults() else _without_faulting(kind))
        started = [*_namespace(), "sh", "-c", inside, "sh", *command]
        return subprocess.run(started, check=False, env=environment).returncode


def _cpuid_faults() -> bool:
    return " cpuid_fault" in CPUINFO.read_text(encoding="utf-8")


def _without_faulting(kind: str) -> dict[str, str]:
    places = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "older_cpu"
    places.mkdir(parents=True, exist_ok=True)
    variables = {"OLDER_CPU_PLACES": str(places)}
    if kind == "avx2":  # glibc itself asks before a library is there that could answer
        hidden = ",".join(f"-AVX512{unit}" for unit in ("F", "VL", "BW", "DQ", "CD"))
        variables["GLIBC_TUNABLES"] = f"glibc.cpu.hwcaps={hidden}"
    return variables


def _namespace() -> list[str]:
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=HIDDEN)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if lack := missing():
        sys.exit(f"older_cpu.py | this machine lacks {lack} | run it on an older processor itself")
    return run(arguments.kind, arguments.command)


if __name__ == "__main__":
    sys.exit(main())
