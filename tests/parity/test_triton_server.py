"""A real Triton serves what `rrtn export --triton` writes: its config, its labels, its scores.

The server is that of the wheel nvidia-pytriton. It lacks the ONNX Runtime backend, so the Python backend runs
the same file in its place (triton_python_model.py), on the CPU. `make soak` makes .triton, an environment of
its own: the Python backend needs NumPy 1.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import rrtn
from rrtn.export.triton import triton_repository_from_bundle
from rrtn.runtime import Scorer, load_bundle
from served import ServeProcess, at_once

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("RRTN_TRITON", ROOT / ".triton"))
CLIENT = ROOT / "examples/triton_client.py"
CLIENTS = 6  # at a time, each of which asks for one clip after the other
LIMIT = 1e-5  # in score: another version of ONNX Runtime, and batches of other sizes


MODELS = ("rrtn_logmel", "rrtn_waveform")
CLIPS = sorted((ROOT / "tests/fixtures/bursts").glob("*.wav"))


class Triton(NamedTuple):
    """A server, and what it serves."""

    port: int
    bundle: Path
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/{path}") as answer:
            return json.loads(answer.read() or b"null")

    def client(self, *arguments: object) -> list[dict[str, Any]]:
        """What the example prints."""
        return asked(self.log.parent, "--url", f"127.0.0.1:{self.port}", *arguments)


def asked(folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """What the example prints, in the environment of Triton's clients. There rrtn is a link in `folder`."""
    (folder / "path").mkdir(exist_ok=True)
    link = folder / "path/rrtn"
    link.exists() or link.symlink_to(Path(rrtn.__file__).parent)
    command = [ENVIRONMENT / "bin/python", CLIENT, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(folder / "path")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def python_library() -> Path:
    """The folder of libpython, which the Python backend loads."""
    folder = Path(sysconfig.get_config_var("LIBDIR"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not list(folder.glob(f"libpython{version}.so*")):
        pytest.skip(f"no libpython{version}.so in {folder}")
    return folder


def command_of(wheel: Path, folder: Path, ports: dict[str, int]) -> list[object]:
    """Triton on `folder`/models, which this machine alone reaches."""
    parts = wheel / "pytriton/tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = shutil.copytree(parts / "backends/python", folder / "backends/python")
    shutil.copy(parts / f"python_backend_stubs/{version}/triton_python_backend_stub", backend)
    places = [f"--{name}-port={port}" for name, port in ports.items()]
    places += [f"--{name}-address=127.0.0.1" for name in ports]
    folders = [f"--model-repository={folder / 'models'}", f"--backend-directory={folder / 'backends'}"]
    return [parts / "bin/tritonserver", *folders, *places, "--log-verbose=1"]


def free_ports(*names: str) -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: taken.getsockname()[1] for name, taken in zip(names, sockets, strict=True)}


@pytest.fixture(scope="module")
def triton(main_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    if not (ENVIRONMENT / "bin/python").exists():
        pytest.skip(f"no {ENVIRONMENT}: make .triton")
    folder, bundle = tmp_path_factory.mktemp("triton"), main_job / "runs/first/export"
    for model in triton_repository_from_bundle(load_bundle(bundle), folder / "models"):
        config = (model / "config.pbtxt").read_text()
        assert config.count('backend: "onnxruntime"') == 1
        (model / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))
        shutil.copy(Path(__file__).with_name("triton_python_model.py"), model / "1/model.py")
    (wheel,) = ENVIRONMENT.glob("lib/python3.*/site-packages")
    ports = free_ports("http", "grpc", "metrics")
    libraries = f"{wheel / 'nvidia_pytriton.libs'}:{python_library()}"
    packages = f"{ENVIRONMENT / 'numpy-1'}:{wheel}"
    env = {**os.environ, "PYTHONPATH": packages, "PACKAGES": packages, "LD_LIBRARY_PATH": libraries}
    server = Triton(ports["http"], bundle, folder / "log")
    with server.log.open("wb") as log:
        command = [*map(str, command_of(wheel, folder, ports))]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        until_ready(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def until_ready(server: Triton, process: "subprocess.Popen[bytes]") -> None:
    """Warm-up is part of that: Triton is ready once each model has run its warm-up batches."""
    while process.poll() is None:
        with suppress(OSError):
            return server.get("health/ready")
        time.sleep(0.2)
    raise AssertionError(server.log.read_text()[-5000:])


def test_all_that_was_exported_is_served(triton: Triton) -> None:
    for name in MODELS:
        config, metadata = triton.get(f"models/{name}/config"), triton.get(f"models/{name}")
        assert config["max_batch_size"] == 256
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 2000
        assert [one["batch_size"] for one in config["model_warmup"]] == [1, 32]
        assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}]


def test_each_model_was_warmed_up(triton: Triton) -> None:
    log = triton.log.read_text()
    for name in MODELS:
        for batch in (1, 32):
            assert re.search(rf"model '{name}' instance .*warmup sample 'batch {batch}'", log)


@pytest.mark.parametrize("model", MODELS)
def test_scores_and_labels_are_those_of_rrtn_score(triton: Triton, model: str) -> None:
    answers = triton.client("--model", model, *CLIPS)
    with Scorer(triton.bundle, variant="fp32") as scorer:
        rows = list(scorer.score_files(CLIPS))
    worst = 0.0
    for answer, row in zip(answers, rows, strict=True):
        assert answer.pop("file") == str(row.file)
        assert row.scores and set(answer) == set(row.scores)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
        worst = max([worst, *(abs(answer[label] - score) for label, score in row.scores.items())])
    print(f"{model}: scores differ by {worst:.1e} at most")
    assert worst < LIMIT


def test_requests_share_batches(triton: Triton) -> None:
    before = counts(triton)
    at_once(CLIENTS, [partial(triton.client, "--model", MODELS[1], *CLIPS)] * CLIENTS)
    after = counts(triton)
    asked_for, run = (after[key] - before[key] for key in ("inference_count", "execution_count"))
    print(f"{asked_for} requests in {run} batches")
    assert asked_for == CLIENTS * len(CLIPS)
    assert run < asked_for


def counts(triton: Triton) -> dict[str, int]:
    (stats,) = triton.get(f"models/{MODELS[1]}/stats")["model_stats"]
    return {key: int(stats[key]) for key in ("inference_count", "execution_count")}


def test_the_same_client_asks_rrtn_serve(triton: Triton, tmp_path: Path) -> None:
    server = ServeProcess(triton.bundle, tmp_path)
    try:
        answers = asked(tmp_path, "--url", f"127.0.0.1:{server.port}", *CLIPS)
    finally:
        server.close()
    with Scorer(triton.bundle) as scorer:
        for answer, row in zip(answers, scorer.score_files(CLIPS), strict=True):
            del answer["file"]
            assert answer == pytest.approx(row.scores, abs=1e-6)
