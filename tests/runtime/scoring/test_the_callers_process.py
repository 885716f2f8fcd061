"""A Scorer is a guest in the process of a program: what belongs to the program stays as it was."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

STATE = """
import decimal, faulthandler, gc, locale, logging, multiprocessing, os, random, resource, signal, socket
import sys, threading, warnings
import numpy as np


def in_a_thread(ask):
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    return found


def keeps_denormals():
    return bool(np.float32(1e-42) * np.float32(0.5) > 0)


def state():
    umask = os.umask(0)
    os.umask(umask)
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    root = logging.getLogger()
    return {
        "denormals": [keeps_denormals(), *in_a_thread(keeps_denormals)],
        "errors of NumPy": np.geterr(),
        "decimal": str(decimal.getcontext()),
        "random": (random.getstate(), str(np.random.get_state())),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "waking": signal.set_wakeup_fd(-1),
        "faulthandler": faulthandler.is_enabled(),
        "folder": os.getcwd(),
        "umask": umask,
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "processors": os.sched_getaffinity(0),
        "priority": os.nice(0),
        "variables": {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"},
        "locale": locale.setlocale(locale.LC_ALL),
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "logging": (root.level, list(root.handlers), root.filters, logging.root.manager.disable),
        "recursion": sys.getrecursionlimit(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "time for sockets": socket.getdefaulttimeout(),
        "switches": sys.getswitchinterval(),
    }


def check(when):
    now = state()
    changed = {name: (before[name], now[name]) for name in before if before[name] != now[name]}
    assert not changed, (when, changed)


before = state()
check("nothing was done")
from rrtn.runtime import Scorer

check("imported")
*files, model, backend = sys.argv[1:]
with Scorer(model, backend) as scorer:
    check("loaded")
    rows = [*scorer.score_files([*files, "missing.wav"])]
    assert [bool(row.error) for row in rows] == [False] * len(files) + [True]
    scorer.score_waveform(np.sin(np.arange(20_000) / 9), 16_000)
    check("scored")
    assert in_a_thread(lambda: [*scorer.score_files(files)])[0]
    check("scored by another thread")
check("closed")
assert threading.active_count() == 1, threading.enumerate()
assert not multiprocessing.active_children()
"""


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_what_belongs_to_the_program_stays_as_it_was(
    backend: str, tiny_model: Path, real_clips: list[Path], tmp_path: Path
) -> None:
    if backend == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    command = [sys.executable, "-c", STATE, *map(str, real_clips[:3]), str(tiny_model), backend]
    env = {
        name: value for name, value in os.environ.items() if name != "CI"
    }  # there OpenVINO reports nothing
    (home := tmp_path / "home").mkdir()
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env={**env, "HOME": str(home)}
    )
    assert done.returncode == 0, done.stderr
    assert not [*home.iterdir()]
