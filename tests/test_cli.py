"""The `rrtn` command: its list of commands, and how each of them ends."""

import ast
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rrtn
import typer
from rrtn.cli import COMMANDS
from rrtn.commands import program
from rrtn.runtime import load_bundle
from rrtn_processes import Server

FOLDER = Path(rrtn.__file__).parent / "commands"
RRTN = (sys.executable, "-m", "rrtn")
RUN_MAIN = "from rrtn.cli import main; main()"
NO_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""
NO_SPACE = """
import rrtn.runtime.doctor
def examine():
    raise OSError(28, "No space left on device", "some/file")
rrtn.runtime.doctor.examine = examine
"""
BUG = "import rrtn.runtime.doctor; rrtn.runtime.doctor.examine = lambda: 1 / 0"


Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(runtime_server: Server) -> Call:
    """`rrtn` in a forked process, with `env` in its environment, after Python that sets up a fault."""

    def start(
        *arguments: object, cwd: Path, before: str = "", **env: object
    ) -> "subprocess.CompletedProcess[str]":
        ended = runtime_server.start(*arguments, cwd=cwd, before=before, **env).wait()
        return subprocess.CompletedProcess(arguments, ended.code, ended.out, ended.err)

    return start


def call_new(*arguments: object, cwd: Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    """`rrtn` in a new interpreter."""
    program = f"{before}\nimport sys; sys.argv = {['rrtn', *map(str, arguments)]}; {RUN_MAIN}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False
    )


def loaded_by(*arguments: str, cwd: Path) -> set[str]:
    """The modules that are loaded when `rrtn` ends."""
    tell = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = call_new(*arguments, cwd=cwd, before=tell)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def error_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The fields of the failure. The document is all of stdout, and the line on stderr says the same."""
    document = json.loads(done.stdout)
    assert document.keys() == {"error"}
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"subject", "came", "wanted", "fix", "exit_code"}
    assert error["exit_code"] == done.returncode
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"rrtn: {error['subject']}")
    assert line.endswith(error["fix"] or error["wanted"] or error["came"])
    return error


# The list


def functions_with_json() -> set[tuple[str, str]]:
    """Module and name of each function that has the option --json: these are the commands."""
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                annotations = [arg.annotation for arg in (*node.args.args, *node.args.kwonlyargs)]
                if any(
                    isinstance(annotation, ast.Name) and annotation.id == "Json" for annotation in annotations
                ):
                    found.add((path.stem, node.name))
    return found


def test_every_command_is_in_the_list() -> None:
    assert sorted(program.COMMANDS) == sorted(COMMANDS)
    listed = {(command.module, name) for name, command in COMMANDS.items()}
    of_data = {("data", f"data_{name}") for name in ("synth", "import", "check")}
    assert functions_with_json() - of_data == listed - {("data", "data")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_in_the_list_is_the_commands_own(name: str) -> None:
    command = getattr(importlib.import_module(f"rrtn.commands.{COMMANDS[name].module}"), name)
    own = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
    assert COMMANDS[name].help == own.splitlines()[0]


def test_every_command_can_be_called_by_its_name(runtime_server: Server, tmp_path: Path) -> None:
    for name in COMMANDS:
        ended = runtime_server.start(name, "--help", cwd=tmp_path).wait()
        assert ended.code == 0, ended.err
        assert ended.out.startswith(f"Usage: rrtn {name} ")


def test_help_loads_no_command(tmp_path: Path) -> None:
    loaded = loaded_by("--help", cwd=tmp_path)
    assert {name for name in loaded if name.startswith("rrtn.commands.")} == {
        "rrtn.commands.ending",
        "rrtn.commands.lazy_group",
        "rrtn.commands.printing",
        "rrtn.commands.program",
        "rrtn.commands.streams",
    }
    assert loaded.isdisjoint({"rich", "numpy", "onnxruntime", "torch"})


def test_the_help_of_a_command_loads_that_command_alone(tmp_path: Path) -> None:
    loaded = loaded_by("score", "--help", cwd=tmp_path)
    names = ("ending", "lazy_group", "options", "printing", "program", "score", "streams", "summary")
    own = {f"rrtn.commands.{name}" for name in names}
    assert {name for name in loaded if name.startswith("rrtn.commands.")} == own
    assert loaded.isdisjoint({"rich", "numpy", "onnxruntime", "torch"})


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_without_a_command_help_is_printed_and_the_code_is_2(
    call: Call, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("Usage: rrtn")
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("data", "check"), ("train",)])
def test_n23_h_is_help(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    short, long = (call(*arguments, flag, cwd=tmp_path) for flag in ("-h", "--help"))
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert "-h, --help" in short.stdout


@pytest.mark.parametrize(
    ("shell", "typed", "offered"),
    [
        ("bash", "", ["train", "score", "data", "doctor"]),
        ("bash", "data ", ["synth", "check"]),
        ("bash", "table2 --enc", ["--encoders"]),
        ("zsh", "score --win", ["--window"]),
        ("fish", "sc", ["score"]),
    ],
)
def test_n23_a_shell_completes_commands_and_options(
    call: Call, tmp_path: Path, shell: str, typed: str, offered: list[str]
) -> None:
    """As the script of --install-completion asks: through the environment, with an empty command line."""
    words = f"rrtn {typed}"
    env = {"_RRTN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    env |= {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = call(cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    assert [name for name in offered if name not in done.stdout] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_n23_completion_is_installed_into_the_home_folder(call: Call, tmp_path: Path, shell: str) -> None:
    """In a home folder of its own, from that shell as far as rrtn can tell."""
    told = f"import shellingham; shellingham.detect_shell = lambda *a, **b: ({shell!r}, '/bin/{shell}')"
    env = {"HOME": tmp_path, "ZDOTDIR": tmp_path}
    shown = call("--show-completion", cwd=tmp_path, before=told, **env)
    assert (shown.returncode, "_RRTN_COMPLETE" in shown.stdout) == (0, True), shown.stderr
    done = call("--install-completion", cwd=tmp_path, before=told, **env)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_RRTN_COMPLETE" in path.read_text() for path in written)


# Failures


@pytest.mark.parametrize(
    ("arguments", "subject", "came"),
    [
        (["score", "--foo"], "rrtn score", "No such option: --foo"),
        (["score", "--top", "x"], "rrtn score", "Invalid value for '--top'"),
        (["scroe"], "rrtn", "No such command 'scroe'. Did you mean 'score'?"),
        (["data", "chek"], "rrtn data", "No such command 'chek'. Did you mean 'check'?"),
        (["data", "synth"], "rrtn data synth", "Missing argument 'OUT'"),
        (["inspect", "a", "b"], "rrtn inspect", "Got unexpected extra argument"),
    ],
)
def test_a_wrong_option_is_a_document(
    call: Call, tmp_path: Path, arguments: list[str], subject: str, came: str
) -> None:
    error = error_of(call(*arguments, "--json", cwd=tmp_path))
    assert (error["subject"], error["exit_code"]) == (subject, 2)
    assert error["came"].startswith(came)
    assert error["fix"] == f"{subject} --help"


def test_a_refused_setting_is_a_document(call: Call, tmp_path: Path) -> None:
    error = error_of(call("score", "a.wav", "--engine", "spark", "--json", cwd=tmp_path))
    assert error == {
        "subject": "--engine",
        "came": "'spark'",
        "wanted": "local or ray",
        "fix": "",
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("score a.wav -m NAME", 5),
        ("score a.wav -m tiny.onnx --out NAME/t.csv", 2),
        ("inspect NAME", 5),
        ("data check NAME", 2),
        ("tracks NAME", 2),
        ("pack . --out NAME", 2),
    ],
)
@pytest.mark.parametrize("name", ["a" * 5_000, "loop"], ids=["long", "loop"])
def test_a_name_that_no_file_can_have_is_an_argument_and_no_storage(
    call: Call, tmp_path: Path, tiny_model: Path, command: str, code: int, name: str
) -> None:
    """Too long, or a link to itself."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.wav").touch()
    done = call(*command.replace("NAME", name).split(), "--json", cwd=tmp_path)
    assert error_of(done)["exit_code"] == code, done.stderr[:500]


def test_refused_data_is_a_document(call: Call, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = error_of(call("score", "empty", "-m", tiny_model, "--json", cwd=tmp_path))
    assert error["subject"].startswith("'empty'")
    assert error["exit_code"] == 2


def test_a_refused_model_is_a_document(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    error = error_of(call("score", "a.wav", "-m", "text.onnx", "--json", cwd=tmp_path))
    assert error["subject"].startswith("text.onnx")
    assert error["exit_code"] == 5


def test_a_spent_error_budget_is_a_document(call: Call, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no audio")
    error = error_of(call("score", "text.wav", "-m", tiny_model, "--fail-fast", "--json", cwd=tmp_path))
    assert error["subject"].startswith("text.wav unsupported_format")
    assert error["came"] == "the first bad file, with --fail-fast"
    assert error["exit_code"] == 4


def test_a_missing_extra_is_a_document(call: Call, tmp_path: Path) -> None:
    error = error_of(call("train", "--json", cwd=tmp_path, before=NO_TORCH))
    assert (error["subject"], error["exit_code"]) == ("torch", 2)
    assert re.fullmatch(r'pip install .*"torch==\S+" .*', error["fix"])


def test_failing_storage_is_a_document(call: Call, tmp_path: Path) -> None:
    error = error_of(call("doctor", "--json", cwd=tmp_path, before=NO_SPACE))
    assert (error["subject"], error["came"]) == ("some/file", "No space left on device")
    assert error["exit_code"] == 4


@pytest.mark.parametrize(
    ("number", "subject"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_is_a_document(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path], number: signal.Signals, subject: str
) -> None:
    """The decoder hangs in the file, so the signal always comes while rrtn waits for it."""
    process = subprocess.Popen(
        [*RRTN, "score", real_clips[0], "-m", tiny_model, "--json"],
        cwd=tmp_path,
        env={**os.environ, "RRTN_FAILPOINT": "read.*:sleep:all"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr
        first = process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=500)
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert first.startswith("1 file, ")
    error = error_of(done)
    assert (error["subject"], error["exit_code"]) == (subject, 128 + number)


def test_without_json_stdout_is_empty(call: Call, tmp_path: Path) -> None:
    for arguments in (["score", "--foo"], ["score", "a.wav", "--engine", "spark"]):
        done = call(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_file_that_is_called_json_is_no_option(call: Call, tmp_path: Path, tiny_model: Path) -> None:
    done = call("score", "-m", tiny_model, "--", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(("rank", "documents"), [("0", 1), ("1", 0)])
def test_one_document_from_several_processes(call: Call, tmp_path: Path, rank: str, documents: int) -> None:
    done = call("train", "--foo", "--json", cwd=tmp_path, RANK=rank)
    assert (done.returncode, done.stdout.count('"error"')) == (2, documents)
    assert done.stderr.count("\n") == 1


def test_nobody_reads_the_document(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*RRTN, "score", "--foo", "--json"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr.count(b"\n")) == (141, 1)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_bug_keeps_its_traceback(call: Call, tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = call("doctor", *flags, cwd=tmp_path, before=BUG)
    assert done.returncode == 1
    if flags:
        error = json.loads(done.stdout)["error"]
        assert (error["came"], error["exit_code"]) == ("ZeroDivisionError: division by zero", 1)
    else:
        assert done.stdout == ""
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def commands_with_json() -> list[list[str]]:
    return [["data", "synth"], ["data", "check"], *([name] for name in COMMANDS if name != "data")]


@pytest.mark.parametrize("command", commands_with_json(), ids=" ".join)
def test_n23_every_command_gives_a_document_for_a_wrong_option(
    call: Call, tmp_path: Path, command: list[str]
) -> None:
    error = error_of(call(*command, "--no-such-option", "--json", cwd=tmp_path))
    assert error["exit_code"] == 2
    assert error["subject"] == " ".join(["rrtn", *command])


FAILURES = {
    "evaluate nowhere": (2, "nowhere"),
    "report nowhere": (2, "nowhere"),
    "export nowhere": (2, "nowhere"),
    "parity nowhere": (5, "nowhere"),
    "inspect nowhere": (5, "nowhere"),
    "bench nowhere": (5, "nowhere"),
    "bench --batches x": (2, "--batches"),
    "score nowhere.wav -m nowhere": (5, "nowhere"),
    "pack nowhere": (2, "nowhere"),
    "train --lr 99": (2, "--lr"),
    "table2 --epochs -1": (2, "--epochs"),
    "data check nowhere": (2, "nowhere"),
    "data synth OUT --clips 1": (2, "clips"),
    "export empty --require cnn": (2, "--require"),
    "export empty --targets x": (2, "--targets"),
}


@pytest.mark.parametrize("line", FAILURES)
def test_n23_every_command_gives_a_document_where_it_fails(call: Call, tmp_path: Path, line: str) -> None:
    (tmp_path / "empty").mkdir()
    error = error_of(call(*line.split(), "--json", cwd=tmp_path))
    code, subject = FAILURES[line]
    assert error["exit_code"] == code
    assert subject in error["subject"] + error["came"]


def test_n23_a_runs_folder_is_taken_for_the_bundle_in_it(
    call: Call, tmp_path: Path, tiny_model_at: Callable[..., Path]
) -> None:
    """`-m RUN`, and RUN wherever a command takes a bundle."""
    bundle = tmp_path / "RUN/export"
    bundle.mkdir(parents=True)
    bare = load_bundle(tiny_model_at(bundle / "model.onnx"))
    (bundle / "bundle.json").write_text(json.dumps(bare.manifest()))
    for command in (["inspect", "RUN"], ["inspect", "RUN/export"], ["inspect", "RUN/export/bundle.json"]):
        done = call(*command, "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["bundle"] == "RUN/export", done.stderr
    (bundle / "bundle.json").unlink()
    error = error_of(call("inspect", "RUN", "--json", cwd=tmp_path))
    assert error["subject"].startswith("RUN")


@pytest.mark.parametrize("way", ["--window", "--segment"])
def test_a_limit_that_does_not_count_is_told(
    call: Call, tmp_path: Path, tiny_model: Path, real_clips: list[Path], way: str
) -> None:
    how = [way, "auto"] if way == "--window" else [way]
    done = call("score", real_clips[0], "-m", tiny_model, *how, "--max-seconds", 5, cwd=tmp_path)
    assert f"note: --max-seconds does not count with {way}" in done.stderr
    done = call("score", real_clips[0], "-m", tiny_model, *how, cwd=tmp_path)
    assert "note:" not in done.stderr


def test_n23_one_is_not_many(call: Call, tmp_path: Path, tiny_model: Path, real_clips: list[Path]) -> None:
    done = call("score", real_clips[0], "-m", tiny_model, cwd=tmp_path)
    assert done.stderr.startswith("1 file, ")
    assert re.search(r"^1 of 1 file scored in ", done.stderr, flags=re.M)
    assert not re.search(r"^(?!score: ).*\b1 (files|clips|errors)\b", done.stderr, flags=re.M)


ROOT = Path(__file__).parents[1]


def test_n23_plain_make_prints_help_and_installs_nothing() -> None:
    make = ["make", "--no-print-directory"]  # which `make test` would print around it
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)) - {"help"}
    assert targets == set(re.findall(r"^make ([a-z-]+)", done.stdout, flags=re.M))
    plan = subprocess.run([*make, "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("echo") for line in plan.splitlines())


def test_n23_make_clean_says_what_it_leaves(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("build", ".venv", "runs", "commands", "runtime", "train", "export"):
        (tmp_path / name).mkdir()
    done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not (tmp_path / "build").exists()
    assert all((tmp_path / name).exists() for name in (".venv", "runs"))
    assert all(name in done.stdout for name in (".venv", "runs/", "cache"))
