"""Ray scores the same shards: the same bytes whoever scores them, whatever dies meanwhile.

Real Ray, on this machine.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rrtn.runtime import load_bundle
from rrtn.runtime.errors import ConfigError, UnavailableError
from rrtn.runtime.scoring.ray_engine import Share, ray_engine, shares_of_node
from rrtn.runtime.scoring.scorer import Scorer
from rrtn.runtime.scoring.scorer_settings import ScorerSettings

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
SMALL_SHARDS = (
    "import rrtn.runtime.audio.input_spool as spool; spool.MEAN_FILES, spool.MOST_FILES = 8, 12; "
    "from rrtn.cli import main; main()"
)
NO_RAY = "import sys; sys.modules['ray'] = None; " + SMALL_SHARDS
POISON = "05-poison.wav"
Start = Callable[..., "subprocess.Popen[bytes]"]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def clips(tmp_path: Path, real_clips: list[Path]) -> Path:
    """120 files in about 15 shards, two of them bad, one with a name that is not UTF-8."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(118):
        clip = real_clips[number % len(real_clips)]
        shutil.copy(clip, folder / f"{number:02}-{clip.name}")
    shutil.copy(real_clips[1], os.path.join(os.fsencode(folder), b"caf\xe9.wav"))
    shutil.copy(real_clips[1], folder / POISON)
    (folder / "40-text.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Where Ray keeps its files: a folder with a short name, since a socket's is limited."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        assert_nothing_runs(folder)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[str]:
    """The address of a Ray that runs by itself, with two CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=2",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *flags]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(command, env=environment_in(home), cwd="/", **quiet) as node:  # type: ignore
        until = time.monotonic() + 120
        while not listens(port):
            assert node.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        node.terminate()


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path, clips: Path, home: Path) -> Iterator[Start]:
    """`rrtn score in --out ...` in the test's folder."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, code: str = SMALL_SHARDS, failpoint: str = "") -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", code, "score", "in", "-m", str(tiny_model), *map(str, arguments)]
        env = {**environment_in(home), "RRTN_FAILPOINT": failpoint, "RRTN_TEST_MARK": str(tmp_path)}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, start_new_session=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert_nothing_runs(f"RRTN_TEST_MARK={tmp_path}")


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: object, **options: str) -> "subprocess.CompletedProcess[bytes]":
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


def with_ray(out: str, cluster: str = "") -> tuple[str, ...]:
    """Without a cluster: with a Ray of its own."""
    return "--out", out, "--engine", "ray", "--workers", "1", *(("--ray-address", cluster) if cluster else ())


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def environment_in(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "2",
    }


def parts(folder: Path, out: str) -> set[str]:
    return {path.name for path in folder.glob(f".{out}.rrtn/*.part")}


def wait_for_parts(folder: Path, out: str, least: int) -> None:
    until = time.monotonic() + 120
    while len(parts(folder, out)) < least:
        assert time.monotonic() < until, "no parts"
        time.sleep(0.05)


def assert_nothing_runs(mark: str) -> None:
    """No process with this in its environment is left, or will be soon."""
    until = time.monotonic() + 120
    while left := [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if mark.encode() in environment(path)
    ]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def environment(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@needs_ray
def test_the_table_has_the_same_bytes_whoever_ends_it_and_stdout_is_rrtns_alone(
    tmp_path: Path, run: Run
) -> None:
    local = run("--out", "local.csv", "--json")
    rays = run(*with_ray("ray.csv"), "--json")
    assert (local.returncode, rays.returncode) == (3, 3), rays.stderr
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert parts(tmp_path, "ray.csv") == parts(tmp_path, "local.csv")
    assert len(parts(tmp_path, "ray.csv")) > 5
    ours, theirs = json.loads(local.stdout), json.loads(rays.stdout)
    same = ("files", "scored", "errors", "audio_seconds", "backend", "variant", "scored_now", "batch_size")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert all(
        line.startswith((b"121 ", b"score: ", b"120 ", b"note: only the start of 20 "))
        for line in rays.stderr.splitlines()
    ), rays.stderr
    assert b"2 Ray actors" in rays.stderr or len(os.sched_getaffinity(0)) != 2
    (tmp_path / "ray.csv").unlink()
    for name in sorted(parts(tmp_path, "ray.csv"))[::2]:
        (tmp_path / ".ray.csv.rrtn" / name).unlink()
    finished = run("--out", "ray.csv")
    assert b"scored before and kept" in finished.stderr  # what Ray has done, by the local engine
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


@pytest.mark.slow
@needs_ray
def test_what_was_begun_locally_is_finished_with_ray_whose_actors_die(
    tmp_path: Path, run: Run, cluster: str
) -> None:
    """Each at its 8th batch, two or three of which are a shard; a new one scores the shard again."""
    run("--out", "whole.csv")
    assert run("--out", "t.csv", failpoint="shard.done:sigkill:4").returncode == -signal.SIGKILL
    begun = {name: (tmp_path / ".t.csv.rrtn" / name).stat().st_mtime_ns for name in parts(tmp_path, "t.csv")}
    assert len(begun) == 4
    finished = run(*with_ray("t.csv", cluster), failpoint="model.*:sigkill:8")
    assert finished.returncode == 3, finished.stderr
    assert b"scored before and kept" in finished.stderr
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert begun == {
        name: (tmp_path / ".t.csv.rrtn" / name).stat().st_mtime_ns for name in begun
    }  # not scored again


@pytest.mark.slow
@needs_ray
def test_what_a_killed_driver_has_begun_is_finished_locally(tmp_path: Path, start: Start, run: Run) -> None:
    run("--out", "whole.csv")
    driver = start(*with_ray("t.csv"), failpoint="shard.done:sleep:5")
    wait_for_parts(tmp_path, "t.csv", 5)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert len(parts(tmp_path, "t.csv")) == 5
    assert not (tmp_path / "t.csv").exists()
    finished = run("--out", "t.csv")
    assert b"scored before and kept" in finished.stderr
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
@needs_ray
def test_a_shard_that_always_kills_its_actor_stops_the_run(tmp_path: Path, run: Run, cluster: str) -> None:
    done = run(*with_ray("t.csv", cluster), failpoint="model.*:sigkill:1")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(b"rrtn: --engine ray | ")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.slow
@needs_ray
def test_a_poison_file_is_a_row_as_it_is_locally(tmp_path: Path, run: Run, cluster: str) -> None:
    poisoned = f"read.{POISON}:sigsegv:all"
    run("--out", "whole.csv", failpoint=poisoned)
    done = run(*with_ray("t.csv", cluster), failpoint=poisoned)
    assert done.returncode == 3, done.stderr
    table = (tmp_path / "t.csv").read_bytes()
    assert table == (tmp_path / "whole.csv").read_bytes()
    assert f"in/{POISON},,,,,,crashed,\n".encode() in table


@pytest.mark.slow
@needs_ray
def test_failing_storage_stops_with_4_and_what_is_done_is_kept(
    tmp_path: Path, run: Run, cluster: str
) -> None:
    run("--out", "whole.csv")
    done = run(*with_ray("t.csv", cluster), failpoint=f"read.{POISON}:eio:all")
    assert done.returncode == 4
    assert POISON.encode() in done.stderr.splitlines()[-1]
    assert parts(tmp_path, "t.csv")
    run("--out", "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize(
    ("number", "code", "own"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)]
)
def test_a_signal_ends_it_while_it_waits_for_ray(
    tmp_path: Path, start: Start, cluster: str, number: signal.Signals, code: int, own: bool
) -> None:
    driver = start(*with_ray("t.csv", "" if own else cluster), failpoint=f"read.{POISON}:sleep:all")
    wait_for_parts(tmp_path, "t.csv", 3)
    time.sleep(0.5)
    os.kill(driver.pid, number)  # the file would hold it for an hour
    out, _ = driver.communicate(timeout=500)
    assert (driver.returncode, out) == (code, b"")


@pytest.mark.slow
@needs_ray
def test_sigterm_while_ray_starts_is_no_other(home: Path, start: Start) -> None:
    before = sessions(home)
    driver = start(*with_ray("t.csv"))
    until = time.monotonic() + 120
    while sessions(home) == before:
        assert time.monotonic() < until
    driver.terminate()
    driver.communicate(timeout=500)
    assert driver.returncode == 143


def sessions(home: Path) -> set[Path]:
    return set(home.glob("**/session_2*"))


@pytest.mark.slow
@needs_ray
def test_too_many_bad_files_stop_it(run: Run, cluster: str) -> None:
    done = run(*with_ray("t.csv", cluster), "--fail-fast")
    assert done.returncode == 4
    assert b"40-text.wav unsupported_format" in done.stderr


def test_without_ray_it_says_what_to_install(run: Run) -> None:
    done = run(*with_ray("t.csv"), code=NO_RAY)
    assert (done.returncode, done.stdout) == (2, b"")
    line = b'rrtn: ray | not installed, and --engine ray needs it | pip install "ray>=2.40"\n'
    assert done.stderr == line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--engine", "spark", "--out", "t.csv"),
        ("--engine", "ray"),
        ("--ray-address", "auto", "--out", "t.csv"),
        (*with_ray("t.csv"), "--workers", "0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"rrtn: --")
    assert len(done.stderr.splitlines()) == 1


@needs_ray
def test_an_address_where_nobody_listens_is_refused_before_ray_tries_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would try for minutes."""
    import ray
    from rrtn.runtime.bundle import load_bundle

    tried: list[object] = []
    monkeypatch.setattr(ray, "init", lambda *arguments, **options: tried.append(arguments))
    with (
        pytest.raises(ConfigError, match="--ray-address"),
        ray_engine(load_bundle(tiny_model), ScorerSettings(), address="127.0.0.1:1"),
    ):
        pass
    assert tried == []


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "shares"),
    [
        (2, 0, None, [Share(2, 0)]),
        (2, 0, 1, [Share(1, 0), Share(1, 0)]),
        (10, 0, None, [Share(5, 0), Share(5, 0)]),
        (64, 0, 16, [Share(16, 0)] * 4),
        (2, 0, 4, [Share(2, 0)]),
        (0, 0, None, []),
        (16, 2, None, [Share(8, 1), Share(8, 1)]),
        (16, 2, 4, [Share(4, 1), Share(4, 1)]),
        (1, 2, None, [Share(0, 1), Share(0, 1)]),
    ],
)
def test_actors_fill_a_node_and_never_more(
    cpus: int, gpus: int, workers: int | None, shares: list[Share]
) -> None:
    found = shares_of_node(cpus, gpus, workers)
    assert found == shares
    assert sum(share.cpus for share in found) <= cpus


def test_an_actor_takes_the_lanes_it_is_given(tiny_model: Path) -> None:
    assert Scorer(tiny_model, "cpu", lanes=3).lanes == 3
    assert Scorer(tiny_model, "cpu").lanes == len(os.sched_getaffinity(0))


@needs_ray
def test_without_a_gpu_the_gpu_backend_is_refused(tiny_model: Path) -> None:
    from rrtn.runtime.scoring import ray_engine as module

    with pytest.raises(UnavailableError, match="--backend cuda"):
        module._shares([{"Alive": True, "Resources": {"CPU": 4.0}}], "cuda", None)
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
    ]
    assert module._shares(nodes, "auto", None) == [Share(8, 1)]  # the same scores from everywhere
    assert module._shares(nodes, "cpu", None) == [Share(4, 0), Share(8, 0)]
    assert module._shares([{**nodes[1], "Alive": False}, nodes[0]], "auto", None) == [Share(4, 0)]


def test_actors_say_why_they_took_nothing_faster(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real actor, in this process: Ray is a stand-in that hands over what it is given."""
    from rrtn.runtime.scoring import ray_engine as module

    class RayError(Exception): ...

    answers: dict[object, object] = {}
    ray = SimpleNamespace(
        wait=lambda calls, timeout: (calls[:1], []),
        get=lambda call: answers.get(call, call),
        exceptions=SimpleNamespace(RayTaskError=RayError, RayError=RayError),
    )
    monkeypatch.setattr(module, "imported_ray", lambda: ray)
    monkeypatch.setattr(module, "scorer_within_budget", lambda sent, settings: Scorer(sent, settings.backend))
    monkeypatch.setattr("rrtn.runtime.backends.cuda_libraries.cuda_missing", lambda: "no NVIDIA driver")
    bundle = load_bundle(tiny_model)
    contents = {one.name: bundle.read(one) for one in bundle.variants}
    actor = module.ScoringActor(bundle, ScorerSettings(), Share(1, 1), None)

    def start(contents: dict[str, Any]) -> object:
        answers[call := object()] = actor.start(contents)
        return call

    handle = SimpleNamespace(start=SimpleNamespace(remote=start))
    engine = module.RayEngine([handle], contents, name="bundle")
    chosen = f"{bundle.variants[0].file} on cpu; not cuda: no NVIDIA driver"
    assert engine.description == f"bundle: 1 Ray actor, {chosen}"
