"""A Scorer in programs that fork, and in programs that are no Python: rows 1 and 2 of issue 16.

Every program is a process of its own, with a limit, since what is tested here may otherwise hang or start
processes for ever.
"""

import copy
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.runtime import Scorer
from rrtn.runtime.errors import RrtnError

LIMIT = 120  # s, for a program that takes two
Program = Callable[..., "subprocess.CompletedProcess[str]"]

# What each program below begins with. `wrong(seed)` makes a few requests, and counts the wrong answers.
HEAD = """
import multiprocessing, os, pathlib, random, sys, threading, time
import soundfile
from rrtn.runtime import Scorer

paths = sorted(pathlib.Path("wav").iterdir())
waves = {path: soundfile.read(path) for path in paths}
scorer = Scorer("tiny.onnx", "cpu", workers=1, batch_size=4)
truth = {row.file: row.scores for row in scorer.score_files(paths)}
of_waves = {path: scorer.score_waveform(*waves[path]) for path in paths}
assert len({tuple(scores.values()) for scores in truth.values()}) == len(paths)

def wrong(seed, requests=4):
    drawn, count = random.Random(seed), 0
    for _ in range(requests):
        asked = drawn.sample(paths, 3)
        rows = list(scorer.score_files(asked))
        count += [row.file for row in rows] != asked
        count += [row.scores for row in rows] != [truth[path] for path in asked]
        count += scorer.score_waveform(*waves[asked[0]]) != of_waves[asked[0]]
    return count

def forked(run, *arguments):
    sys.stdout.flush()
    if child := os.fork():
        return child
    sys.exit(run(*arguments))  # as gunicorn's workers end, with all that Python and C do at an exit

def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

# Python 3.12 and later warn a program that forks beside threads, as these do.
PYTHON = (sys.executable, "-W", "ignore::DeprecationWarning:__main__")


@pytest.fixture
def program(tmp_path: Path, tiny_model_at: Callable[[Path], Path]) -> Program:
    """Runs Python beside `tiny.onnx` and a folder `wav` of twelve different sounds."""
    tiny_model_at(tmp_path / "tiny.onnx")
    (tmp_path / "wav").mkdir()
    for i in range(12):
        rng = np.random.default_rng(i)
        sound = np.convolve(rng.normal(size=8_000 + 500 * i), np.ones(1 + i))
        soundfile.write(tmp_path / f"wav/{i:02}.wav", sound / abs(sound).max(), 16_000)

    def run(*code: str, python: tuple[str, ...] = PYTHON, **env: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "program.py").write_text("\n".join(code))
        return subprocess.run(
            [*python, str(tmp_path / "program.py")],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    return run


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """What a program printed that has ended well."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# 1: forks


def test_n1_forked_processes_and_threads_get_the_scores_of_their_own_files(program: Program) -> None:
    """Four processes and two threads of the parent ask at once, as under gunicorn --preload."""
    code = """
bad, ended = [], threading.Event()
def ask(seed):
    while not ended.is_set():
        bad.append(wrong(seed, 1))
children = [forked(wrong, 100 + seed, 8) for seed in range(2)]  # the parent's decoders are at hand here
threads = [threading.Thread(target=ask, args=[seed]) for seed in range(2)]
for thread in threads: thread.start()
for seed in range(2):
    time.sleep(0.1)  # a fork may come at any moment of the threads
    children.append(forked(wrong, 200 + seed))
print([code_of(child) for child in children], end=" ")
ended.set()
for thread in threads: thread.join()
print(sum(bad), len(bad) > 0, wrong(7))
"""
    assert said(program(HEAD, code)) == "[0, 0, 0, 0] 0 True 0"


def test_n1_the_parents_decoders_outlive_every_end_of_a_child(program: Program) -> None:
    """A child that closes the scorer, drops it, collects garbage, or ends at once."""
    code = """
import gc
def pids():
    return [decoder._process.pid for pool in scorer._idle for decoder in pool._decoders]
def drop():
    global scorer
    del scorer
    gc.collect()
before = pids()
ends = (lambda: scorer.close(), drop, lambda: os._exit(0), lambda: scorer.__exit__(), lambda: wrong(1))
print([code_of(forked(end)) for end in ends], wrong(2), pids() == before, len(before))
"""
    assert said(program(HEAD, code)) == "[0, 0, 0, 0, 0] 0 True 1"


def test_n1_rows_that_the_parent_asked_for_are_refused_in_the_child(program: Program) -> None:
    """The parent's own rows are not disturbed, wherever in the list the fork came."""
    code = """
from rrtn.runtime import RrtnError
def go_on(rows):
    try:
        for row in rows:
            assert row.scores == truth[row.file]
    except RrtnError as error:
        return 7 if "forked" in str(error) and "score_files again" in str(error) else 8
    return 9
many = [paths[i % 12] for i in range(300)]
rows = scorer.score_files(many)
got = [next(rows) for _ in range(5)]
codes = []
for _ in range(3):
    codes.append(code_of(forked(go_on, rows)))
    got += [next(rows) for _ in range(20)]
got += rows
print(codes, [row.file for row in got] == many, all(row.scores == truth[row.file] for row in got))
"""
    assert said(program(HEAD, code)) == "[7, 7, 7] True True"


@pytest.mark.slow
def test_n1_a_child_of_a_child_and_a_child_whose_parent_has_gone(program: Program) -> None:
    code = """
def deeper():
    return wrong(1) or code_of(forked(wrong, 2)) or wrong(3)
def orphan():
    if os.fork():
        os._exit(0)
    time.sleep(0.2)
    with open("orphan", "w") as file:
        file.write(str(wrong(4)))
    os._exit(0)
print(code_of(forked(deeper)), code_of(forked(orphan)), wrong(5), flush=True)
while not os.path.exists("orphan") or not open("orphan").read(): time.sleep(0.05)
print(open("orphan").read())
"""
    assert said(program(HEAD, code)).split() == ["0", "0", "0", "0"]


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn"))]
)
def test_n1_pools_of_multiprocessing(program: Program, method: str) -> None:
    """A scorer of the module, which fork copies, and which the other two ways make anew."""
    code = f"""
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(wrong, range(4)), wrong(9))
"""
    assert said(program(HEAD, code)) == "[0, 0, 0, 0] 0"


def test_n1_a_fork_while_the_model_runs_loads_the_model_again(program: Program) -> None:
    """A thread that no longer exists may hold the session's locks; else the session is kept."""
    code = """
def same(backend):
    return wrong(1) * 10 + (scorer.backend is backend)
with scorer.timing._lock:  # as a lane's thread has it for a moment, after each batch
    quiet = code_of(forked(same, scorer.backend))
scorer.model.in_use.add(1)  # as a thread of the parent does
busy = code_of(forked(same, scorer.backend))
print(quiet, busy)
"""
    assert said(program(HEAD, code)) == "1 0"


def test_n1_a_model_that_does_not_survive_a_fork_is_refused_after_a_fork(program: Program) -> None:
    """With the CPU under another name: the rule is that of the backend's record."""
    code = """
import dataclasses
import rrtn.runtime.scoring.scoring_model as module
kind = module.backend_kind("cpu")
module.backend_kind = lambda name: dataclasses.replace(kind, survives_fork=False)
def ask():
    codes = 0
    for call in (lambda: list(scorer.score_files(paths)), lambda: scorer.score_waveform(*waves[paths[0]])):
        try:
            call()
        except module.UnavailableError as error:
            codes += "forked" in str(error) and "spawn" in str(error)
    return codes
print(code_of(forked(ask)), wrong(1))
"""
    assert said(program(HEAD, code)) == "2 0"


def test_n1_another_working_directory_has_other_files(program: Program) -> None:
    """Decoders stay in the folder in which they were started. A relative name means the program's folder."""
    code = """
os.chdir("wav")
inside = [row.scores for row in scorer.score_files([path.name for path in paths])]
os.mkdir("../other"); os.chdir("../other")
import shutil; shutil.copy("../wav/00.wav", "01.wav")
(row,) = scorer.score_files(["01.wav"])
print(inside == list(truth.values()), row.scores == truth[paths[0]])
"""
    assert said(program(HEAD, code)) == "True True"


# 2: programs that are no Python


def test_n2_a_scorer_is_a_context_manager(tiny_model: Path, real_clips: list[Path]) -> None:
    with Scorer(tiny_model, "cpu", workers=1) as scorer:
        assert len(list(scorer.score_files(real_clips))) == 12
        (pool,) = scorer._idle
        (decoder,) = pool._decoders
    assert scorer._idle == []
    assert decoder._process.returncode is not None


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_n2_a_scorer_says_that_it_cannot_be_pickled(
    tiny_model: Path, take: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match=r"Scorer \| cannot be pickled.*make a Scorer there") as caught:
        take(Scorer(tiny_model, "cpu"))
    assert isinstance(caught.value, RrtnError)


# A program that is what `sys.executable` names, as frozen and embedding ones are. It counts its starts.
LAUNCHER = """#!/bin/sh
echo start >> starts
[ $(wc -l < starts) -lt 20 ] || exit 99
exec {python} {program} "$@"
"""
ASK = """
import sys
sys.executable = sys._base_executable = {executable!r}
{setup}
from rrtn.runtime import RrtnError, Scorer, freeze_support
import pathlib, soundfile
if __name__ == "__main__":
    {hook}
    scorer = Scorer("tiny.onnx", "cpu", workers=2)
    paths = sorted(pathlib.Path("wav").iterdir())
    try:
        rows = list(scorer.score_files(paths))
        alone = [scorer.score_waveform(*soundfile.read(path)) for path in paths]
        print(all(abs(row.scores[name] - one[name]) < 1e-6 for row, one in zip(rows, alone) for name in one))
    except RrtnError as error:
        print("refused:", error)
"""


def launched(
    program: Program, name: str, *, setup: str = "", hook: str = "pass", **env: str
) -> tuple[str, int]:
    """What a program says whose `sys.executable` is a file `name`; how often it was started."""
    folder = Path(os.environ["LAUNCHED"])
    launcher = folder / name
    launcher.write_text(LAUNCHER.format(python=sys.executable, program=folder / "program.py"))
    launcher.chmod(0o755)
    code = ASK.format(executable=str(launcher), setup=setup, hook=hook)
    done = program(code, python=("sh", "-c", f"exec {launcher}"), **env)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip(), len((folder / "starts").read_text().split())


@pytest.fixture
def launch(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, int]]:
    monkeypatch.setenv("LAUNCHED", str(tmp_path))
    return lambda *args, **kwargs: launched(program, *args, **kwargs)


def test_n2_an_embedding_program_finds_the_python_of_its_library(
    launch: Callable[..., tuple[str, int]],
) -> None:
    """uWSGI, R: `sys.executable` is the program, and a Python lies where its library was built for."""
    assert launch("uwsgi") == ("True", 1)


def test_n2_a_program_without_any_python_fails_once(launch: Callable[..., tuple[str, int]]) -> None:
    answer, starts = launch("app", setup="sys.exec_prefix = sys.base_exec_prefix = '/nowhere'")
    assert starts == 1
    assert answer.startswith("refused: decoder | ")
    assert "is no Python interpreter" in answer
    assert "multiprocessing.set_executable" in answer


@pytest.mark.parametrize("missing", ["None", pytest.param("'/gone/bin/python3'", marks=pytest.mark.slow)])
def test_n2_a_program_that_knows_no_executable(launch: Callable[..., tuple[str, int]], missing: str) -> None:
    assert launch("app", setup=f"sys.executable = sys._base_executable = {missing}") == ("True", 1)


def test_n2_the_python_that_multiprocessing_was_told_is_taken(launch: Callable[..., tuple[str, int]]) -> None:
    setup = f"""
sys.exec_prefix = sys.base_exec_prefix = '/nowhere'
import multiprocessing
multiprocessing.set_executable({sys.executable!r})
"""
    assert launch("app", setup=setup) == ("True", 1)


@pytest.mark.slow
def test_n2_a_program_that_is_named_like_python_starts_itself_once_a_decoder(
    launch: Callable[..., tuple[str, int]],
) -> None:
    """Nobody can tell before it starts. What is started says what it is, and starts nothing more."""
    answer, starts = launch("python3")
    assert answer.startswith("refused: decoder | each new one ends at once")
    assert starts <= 3


def test_n2_a_frozen_program_without_the_hook_fails_once(launch: Callable[..., tuple[str, int]]) -> None:
    answer, starts = launch("app", setup="sys.frozen = True")
    assert starts == 1
    assert "is a frozen program" in answer
    assert "rrtn.runtime.freeze_support()" in answer


def test_n2_a_frozen_program_with_the_hook_scores(launch: Callable[..., tuple[str, int]]) -> None:
    """One start for itself, and one for the decoder of its one file."""
    assert launch("app", setup="sys.frozen = True", hook="freeze_support()") == ("True", 2)


@pytest.mark.parametrize("flags", [("-I",), ("-S",)])
def test_n2_an_isolated_python_has_decoders_that_load_the_same_modules(
    program: Program, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Poison in the environment and the working directory, which the program itself does not load."""
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison/soxr.py").write_text("raise ImportError('poison')")
    (tmp_path / "wave.py").write_text("raise ImportError('poison')")
    env = {"PYTHONPATH": str(tmp_path / "poison")} if "-S" not in flags else {}
    setup = f"sys.path[:] = {[path for path in sys.path if path]!r}"
    code = ASK.format(executable=sys.executable, setup=setup, hook="pass")
    assert said(program(code, python=(sys.executable, *flags), **env)) == "True"


@pytest.mark.slow
def test_n2_a_python_of_another_version_is_refused(
    launch: Callable[..., tuple[str, int]], tmp_path: Path
) -> None:
    fake = tmp_path / "python3.11"
    fake.write_text(f"""#!/bin/sh
exec {sys.executable} -c "import sys; sys.version_info = (3, 9, 1, 'final', 0); exec(sys.argv[-1])" "$@"
""")
    fake.chmod(0o755)
    answer, _ = launch("app", setup=f"sys.executable = {str(fake)!r}")
    assert answer.startswith(
        "refused: decoder | each new one ends at once: Python 3.9, and the program runs 3."
    )


EMBEDDING = """
#include <Python.h>
int main(int count, char **arguments) {
    Py_Initialize();
    FILE *file = fopen("program.py", "r");
    int code = PyRun_SimpleFile(file, "program.py");
    return Py_FinalizeEx() < 0 ? 120 : code != 0;
}
"""


def test_n2_a_c_program_with_libpython_scores(program: Program, tmp_path: Path) -> None:
    config = sysconfig.get_config_vars()
    headers, library = sysconfig.get_paths()["include"], Path(config["LIBDIR"])
    if not (
        shutil.which("gcc")
        and Path(headers, "Python.h").exists()
        and (library / config["LDLIBRARY"]).exists()
    ):
        pytest.skip("needs gcc, Python.h and libpython")
    (tmp_path / "app.c").write_text(EMBEDDING)
    name = f"python{config['VERSION']}"
    link = [f"-I{headers}", f"-L{library}", f"-Wl,-rpath,{library}", f"-l{name}"]
    subprocess.run(["gcc", "app.c", "-o", "app", *link], cwd=tmp_path, check=True)
    setup = f"sys.path[:0] = {[path for path in sys.path if path]!r}"
    code = ASK.format(executable=str(tmp_path / "app"), setup=setup, hook="pass")
    assert said(program(code, python=("sh", "-c", f"exec {tmp_path / 'app'}"))) == "True"
