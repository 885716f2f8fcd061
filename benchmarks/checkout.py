"""Makes `import rrtn` work from a bare checkout, where the package and some of what it imports are not installed.

Imported first, for what it does: where `rrtn` cannot be found, a link to the repository's root goes into a temporary
folder, which goes to the end of sys.path and of PYTHONPATH (for child processes). Modules of rrtn that read files import
soundfile and soxr, and the one with the settings tomli_w; where these are missing, stand-ins let the modules load.
"""

import atexit
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def is_installed(name: str) -> bool:
    """As code, not as one of our stand-ins, and not as type stubs alone, which have no origin."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded.__spec__ is not None
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def toml_from_document(document: Mapping[str, Any], section: str = "") -> str:
    """What tomli_w.dumps writes, for the settings of a run: tables in tables of text, numbers, booleans and lists."""
    lines = [f"[{section}]"] if section else []
    lines += [f"{key} = {_toml(value)}" for key, value in document.items() if not isinstance(value, Mapping)]
    prefix = f"{section}." if section else ""
    tables = [toml_from_document(value, prefix + key) for key, value in document.items() if isinstance(value, Mapping)]
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    """JSON's text, numbers and booleans are TOML's but for 1e-08, which is one of both."""
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list | tuple) else json.dumps(value)


def _stand_in(name: str, **members: Any) -> None:
    """A module without a spec, which has these members and refuses any other."""
    module = ModuleType(name, "A stand-in of benchmarks/checkout.py: the package is not installed.")

    def missing(member: str) -> Any:
        raise AttributeError(f"{name}.{member} | {name} is not installed | pip install {name}")

    vars(module).update(members, __getattr__=missing)
    sys.modules[name] = module


def _make_importable() -> None:
    if not is_installed("rrtn"):
        folder = tempfile.mkdtemp(prefix="rrtn-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (Path(folder) / "rrtn").symlink_to(ROOT)
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))
    if not is_installed("soundfile"):
        _stand_in("soundfile", SoundFile=object, LibsndfileError=type("LibsndfileError", (Exception,), {}))
    if not is_installed("soxr"):
        _stand_in("soxr")
    if not is_installed("tomli_w"):
        _stand_in("tomli_w", dumps=toml_from_document)


_make_importable()
