"""What tests of several layers share: real audio where it lies beside the project, tiny models and
data that are made here.
"""

import ctypes
import gc
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from faults.small_rrtn import keep_freed_memory, read_operators_once
from filelock import FileLock
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.train.data.corpus import synthesise
from rrtn_processes import Server

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).parents[2] / "shared" / "data"
LABELS = ("Awe", "Fear", "Joy")
# torch's threads spin while they wait for each other. On a busy machine that takes ten times as
# long as sleeping.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # likewise, of what the tests start


def pytest_sessionstart() -> None:
    """A shell that starts the tests in the background has all that they start ignore Ctrl-C; nohup, the end.

    A handler is of this process alone: what it starts has the system's own.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


# What is collected stays. To look through it for garbage was a quarter of the collection's time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    if "torch" in sys.modules:
        import torch

        if "PYTEST_XDIST_WORKER" in os.environ:  # each tester has a core: threads would wait for the others'
            torch.set_num_threads(1)
        keep_freed_memory()
        read_operators_once()


IN_OPEN, IN_CLOSE_NOWRITE = 0x20, 0x10
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name, which is 0 for a file


@pytest.fixture(scope="module", autouse=True)
def nothing_old_to_look_through() -> None:
    """What is there before a file of tests stays: nobody looks through it for garbage again and again.

    By then torch and all that was collected are a million objects, through which a look takes 0.1 s.
    """
    gc.collect()
    gc.freeze()


class Watch:
    """Counts how often a file is opened, by any process and under any name.

    inotify watches what a name leads to.
    """

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # With the closing between them, the kernel does not merge two openings into one event.
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN | IN_CLOSE_NOWRITE) >= 0
        self._opened = 0

    def opened(self) -> int:
        """How often so far."""
        try:
            while events := os.read(self._descriptor, 1024 * EVENT.size):
                self._opened += sum(mask & IN_OPEN != 0 for _, mask, _, _ in EVENT.iter_unpack(events))
        except BlockingIOError:
            return self._opened
        raise AssertionError("inotify has ended")

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Watch]]:
    """Watches a file from here on."""
    watches: list[Watch] = []

    def make(path: Path) -> Watch:
        watches.append(Watch(path))
        return watches[-1]

    yield make
    for made in watches:
        made.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Starts `rrtn` with the small encoder, without importing torch each time."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def runtime_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Starts commands of the runtime, without importing NumPy and ONNX Runtime each time."""
    server = Server(tmp_path_factory.mktemp("runtime-server"), "--serve-runtime")
    yield server
    server.close()


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the installed command has made data, a run of ResNet18 on clips of 0.65 s, and a bundle with an
    engine. In clips as short as these the last maps have one tile, a matrix product of one row.

    Made once for all testers, to be left as it is: `corpus`, `runs/first` and `runs/first/export`.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "main-job"
    with FileLock(folder.with_suffix(".lock")):
        if not (made := folder.with_suffix(".made")).exists():
            _make_main_job(folder)
            made.touch()
    return folder


def _make_main_job(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of another tester, where it failed
    folder.mkdir()
    (folder / "short.toml").write_text("[frontend]\nframes = 64\n")
    rrtn = [Path(sys.executable).with_name("rrtn")]
    env = {**os.environ, "RRTN_CACHE": str(folder / "cache")}
    for command in (
        "data synth corpus --clips 32 --speakers 9 --seed 5",
        "train --data corpus --config short.toml --epochs 2 --batch-size 8 --out runs/first",
        "export --trt --require cpu",
    ):
        arguments = [*rrtn, *command.split()]
        done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def spec() -> FrontendSpec:
    return FrontendSpec()


@pytest.fixture
def real_clips() -> list[Path]:
    """Twelve real vocal bursts, WAV and MP3, 11 to 44 kHz."""
    return sorted(path for path in (FIXTURES / "bursts").iterdir() if path.suffix != ".md")


@pytest.fixture
def emodb() -> Path:
    """Real labelled speech; not part of the project."""
    if not (SHARED / "emodb").is_dir():
        pytest.skip("no shared/data/emodb beside the project")
    return SHARED / "emodb"


@pytest.fixture
def bursts() -> Path:
    """770 real bursts in awkward formats; not part of the project."""
    if not (SHARED / "bursts").is_dir():
        pytest.skip("no shared/data/bursts beside the project")
    return SHARED / "bursts"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A waveform cache of the test's own."""
    monkeypatch.setenv("RRTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny_model(tmp_path: Path, spec: FrontendSpec) -> Path:
    """A bare .onnx of ours: scores = sigmoid(mean over frames of log_mel @ W), three labels."""
    return _write_tiny_model(tmp_path / "tiny.onnx", spec)


@pytest.fixture
def tiny_model_at(spec: FrontendSpec) -> Callable[..., Path]:
    """The same, at a path of the test's choice, and with its `labels`."""
    return lambda path, labels=LABELS: _write_tiny_model(path, spec, labels)


@pytest.fixture(scope="session")
def tiny_model_of() -> Callable[..., Path]:
    """The same, at a path and with a spec of the test's choice, and with its `labels`."""
    return _write_tiny_model


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 Train clips of 5 speakers, 9 Val clips of 3, 2 Test clips of one.

    To be left as it is: tests copy it first.
    """
    folder = tmp_path_factory.mktemp("data") / "corpus"
    return synthesise(folder, clips=26, speakers=9, seed=3, split=(0.6, 0.3, 0.1), workers=1)


@pytest.fixture
def csv_lines() -> list[str]:
    """data_info.csv of a tiny data set in the Hume-VB layout: 8 Train, 4 Val, 2 Test clips; item i
    is line i + 1.
    """
    return _tiny_table()


@pytest.fixture
def make_data(tmp_path: Path, csv_lines: list[str]) -> Callable[..., Path]:
    """Writes `csv_lines`, or the bytes or lines that are given, beside the noise of the 14 clips;
    -> the folder.
    """
    return lambda table=csv_lines: _write_tiny_data(tmp_path / "data", table)


@pytest.fixture(scope="session")
def make_data_at() -> Callable[[Path], Path]:
    """The same, with the table of `csv_lines`, as a folder of the test's choice."""
    return lambda folder: _write_tiny_data(folder, _tiny_table())


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, spec: FrontendSpec) -> Iterator[Scorer]:
    """The tiny model on the CPU, with decoders that go on from test to test."""
    scorer = Scorer(_write_tiny_model(tmp_path_factory.mktemp("scorer") / "tiny.onnx", spec), "cpu")
    yield scorer
    scorer.close()


@pytest.fixture
def sound(spec: FrontendSpec) -> NDArray[np.float64]:
    """1.5 s of noise under a smooth envelope at 16 kHz, peak 0.5: something at every frequency, and
    no edges.
    """
    noise = np.random.default_rng(1).normal(size=round(1.5 * spec.sampling_rate)) * np.hanning(
        round(1.5 * spec.sampling_rate)
    )
    return np.asarray(0.5 * noise / np.abs(noise).max())


def _write_tiny_model(path: Path, spec: FrontendSpec, labels: tuple[str, ...] = LABELS) -> Path:
    weights = np.random.default_rng(0).normal(0, 0.005, (spec.n_mels, len(labels))).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["log_mel", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, spec.frames, spec.n_mels])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(labels)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata_of(labels, spec, "logmel", "fp32"))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def _tiny_table() -> list[str]:
    header = "File_ID,Split,Subject_ID,Country_string,Age,Awe,Fear"
    splits = ["Train"] * 8 + ["Val"] * 4 + ["Test"] * 2
    ratings = np.random.default_rng(0).uniform(0, 1, (len(splits), 2)).round(3)
    labels = [
        "," if split == "Test" else f"{awe},{fear}"
        for split, (awe, fear) in zip(splits, ratings, strict=True)
    ]
    rows = (
        f"[{i:05d}],{split},{split}_{i // 2},USA,30,{label}"
        for i, (split, label) in enumerate(zip(splits, labels, strict=True))
    )
    return [header, *rows]


def _write_tiny_data(folder: Path, table: bytes | list[str]) -> Path:
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for number in range(14):
        soundfile.write(folder / f"wav/{number:05d}.wav", rng.uniform(-0.5, 0.5, 4800), 16_000)  # 0.3 s
    content = table if isinstance(table, bytes) else ("\n".join(table) + "\n").encode()
    (folder / "data_info.csv").write_bytes(content)
    return folder
