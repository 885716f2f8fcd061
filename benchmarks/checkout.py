"""Makes `import rrtn` work from a bare checkout, where the package is not installed.

Imported first, for what it does: where `rrtn` cannot be found, a link to the repository's root goes
into a temporary folder, which goes to the end of sys.path and of PYTHONPATH (for child processes). Small
packages that a GPU machine may lack have stand-ins in stand_ins/, used where the real one is missing.
"""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAND_INS = Path(__file__).resolve().parent / "stand_ins"


def is_installed(name: str) -> bool:
    """As code, not as type stubs alone, which have no origin."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _make_importable() -> None:
    wanted = {"rrtn": ROOT} | {path.stem: path for path in STAND_INS.glob("*.py")}
    missing = [name for name in wanted if not is_installed(name)]
    if not missing:
        return
    folder = tempfile.mkdtemp(prefix="rrtn-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in missing:
        (Path(folder) / (name if name == "rrtn" else f"{name}.py")).symlink_to(wanted[name])
    sys.path.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))


_make_importable()
