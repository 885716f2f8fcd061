"""Wheels for a GPU machine that can download nothing, in parts of a size that can be brought to it.

    python benchmarks/gpu_pack.py make PARTS                  here: downloads the wheels, makes parts
    python benchmarks/gpu_pack.py join PARTS --to PACKAGES    there: joins the parts, and installs

The parts may come one by one: `join` keeps those that it is given in `--scratch`, says which are still
missing, and installs once all are there. gpu_plan.py takes PACKAGES as `--packages`.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What a machine with torch, onnx and onnxscript lacks. soundfile brings libsndfile and needs cffi.
NAMES = ("onnxruntime-gpu", "soundfile", "soxr", "cffi", "pycparser")
LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
PYTHON = "3.12"
PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)) + ("manylinux2014_x86_64",)
LIST = "parts.json"


def download(folder: Path) -> None:
    """The wheels of NAMES in the versions of requirements.lock, for the machine there."""
    locked = [line.split()[0] for line in LOCK.read_text().splitlines() if line.partition("==")[0] in NAMES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, "--dest", str(folder), *locked], check=True)


def make(wheels: Path, parts: Path, *, part_bytes: int) -> None:
    """The wheels of a folder -> parts of at most `part_bytes`, and a list with their hashes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:  # wheels are compressed already
        for wheel in sorted(wheels.glob("*.whl")):
            archive.add(wheel, arcname=wheel.name)
    parts.mkdir(parents=True, exist_ok=True)
    names = {}
    for number, content in enumerate(_pieces(packed.getvalue(), part_bytes)):
        name = f"part-{number:02d}"
        (parts / name).write_bytes(content)
        names[name] = hashlib.sha256(content).hexdigest()
    (parts / LIST).write_text(json.dumps(names, indent=1) + "\n")


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


def join(parts: Path, to: Path, scratch: Path) -> list[str]:
    """Keeps the parts that are here, and installs once all are; -> the names of those still missing.

    Raises ValueError where a part is not what the list says.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for file in parts.iterdir():
        shutil.copyfile(file, scratch / file.name)
    listed = json.loads((scratch / LIST).read_text())
    if missing := [name for name in listed if not (scratch / name).exists()]:
        return missing
    contents = {name: (scratch / name).read_bytes() for name in sorted(listed)}
    if broken := [name for name in listed if hashlib.sha256(contents[name]).hexdigest() != listed[name]]:
        raise ValueError(f"{', '.join(broken)}: not what {LIST} lists")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(b"".join(contents.values()))) as archive:
            archive.extractall(folder, filter="data")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-compile", "--upgrade", "--target", str(to)]
        found = sorted(str(path) for path in Path(folder).glob("*.whl"))
        subprocess.run([*command, *found], check=True)
    return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make")
    made.add_argument("parts", type=Path)
    made.add_argument("--wheels", type=Path, help="a folder with the wheels, in place of a download")
    made.add_argument("--part-mb", type=float, default=56.0)
    joined = commands.add_parser("join")
    joined.add_argument("parts", type=Path)
    joined.add_argument("--to", type=Path, required=True)
    joined.add_argument("--scratch", type=Path, default=Path("/tmp/rrtn-gpu/parts"))
    arguments = parser.parse_args()
    if arguments.command == "join":
        missing = join(arguments.parts, arguments.to, arguments.scratch)
        print(f"still missing: {', '.join(missing)}" if missing else f"installed into {arguments.to}")
        raise SystemExit(4 if missing else 0)
    with tempfile.TemporaryDirectory() as name:
        wheels = arguments.wheels or Path(name)
        if not arguments.wheels:
            download(wheels)
        make(wheels, arguments.parts, part_bytes=int(1e6 * arguments.part_mb))


if __name__ == "__main__":
    main()
