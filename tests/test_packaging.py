"""What the wheel holds, what runs without torch, and what starts fast."""

import asyncio
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import rrtn
import typer
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

ROOT = Path(__file__).parents[1]
RRTN = Path(sys.executable).with_name("rrtn")
ROOMS = ("commands", "runtime", "train", "export")

BLOCK_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchaudio", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def python(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **settings
    )


def test_the_tests_run_on_the_installed_wheel() -> None:
    assert "site-packages" in rrtn.__file__


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = [
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--skip-dependency-check",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    built = python(*command)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    patterns = ("*.py", "templates/*", "web/page/*", "web/onnxruntime/*")
    modules = [path for room in ROOMS for pattern in patterns for path in (ROOT / room).rglob(pattern)]
    sources = [*(ROOT / name for name in ("__init__.py", "__main__.py", "cli.py", "py.typed")), *modules]
    assert names == {f"rrtn/{path.relative_to(ROOT)}" for path in sources}


def test_every_runtime_module_imports_without_torch() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "runtime").rglob("*.py")]
    modules = [".".join(["rrtn", *path.parts]).removesuffix(".__init__") for path in paths]
    assert len(modules) > 40
    done = python(
        "-c", f"{BLOCK_TORCH}\nimport importlib; [importlib.import_module(name) for name in {modules}]"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", [["--help"], ["score", "--help"], ["train", "--help"], ["inspect", "--help"], ["doctor"]]
)
def test_commands_that_load_no_torch(command: list[str]) -> None:
    program = f"{BLOCK_TORCH}\nsys.argv = {['rrtn', *command]}; from rrtn.cli import main; main()"
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


HEAVY = {
    *(
        "numpy",
        "onnxruntime",
        "soundfile",
        "soxr",
        "torch",
        "torchaudio",
        "safetensors",
        "onnx",
        "onnxscript",
    ),
    *(
        "tensorboard",
        "pyarrow",
        "ray",
        "tensorrt",
        "tensorrt_rtx",
        "openvino",
        "MNN",
        "multiprocessing",
        "unittest",
    ),
}


COMMANDS = [
    "train",
    "evaluate",
    "export",
    "score",
    "inspect",
    "doctor",
    "demo",
    "parity",
    "bench",
    "report",
    "pack",
    "data synth",
    "data check",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    done = subprocess.run([RRTN, *command.split(), "--help"], check=True, capture_output=True, text=True)
    assert "--json" in done.stdout


def test_a_missing_extra_is_one_line_with_the_command_that_brings_it(tmp_path: Path) -> None:
    program = f"{BLOCK_TORCH}\nsys.argv = ['rrtn', 'train', '--dry-run']; from rrtn.cli import main; main()"
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r'pip install .*"torch==', done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_help_loads_typer_and_nothing_heavier() -> None:
    """What it takes is measured by benchmarks/cold_start.py; here is what it takes it for."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rrtn", "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].split(".")[0].strip() for line in done.stderr.splitlines()}
    assert {"rrtn", "typer"} <= loaded
    assert loaded.isdisjoint(HEAVY)


def test_what_others_do_not_promise_is_there_and_their_versions_have_a_bound() -> None:
    """Before a bound of pyproject.toml is raised, this must pass with the newer version."""
    usage_error = typer.BadParameter.__base__
    assert usage_error and usage_error.__name__ == "UsageError"
    assert callable(typer.main.get_command)

    loop = asyncio.new_event_loop()
    config = Config(print, ws="none", lifespan="off", log_config=None)  # an app that nothing calls
    protocol = HttpToolsProtocol(config, ServerState(), {}, _loop=loop)
    loop.close()
    of_a_connection = (
        *("_unset_keepalive_if_required", "send_400_response", "parser", "cycle", "transport", "loop"),
        *("connection_made", "connection_lost", "data_received", "eof_received", "on_message_begin"),
        *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete"),
    )
    assert [name for name in of_a_connection if not hasattr(protocol, name)] == []
    server = Server(config)
    of_a_server = ("capture_signals", "handle_exit", "force_exit", "should_exit", "server_state")
    assert [name for name in of_a_server if not hasattr(server, name)] == []
    assert hasattr(server.server_state, "connections")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    bounded = [one for one in wanted if one.startswith(("typer", "uvicorn"))]
    assert len(bounded) == 3
    assert [one for one in bounded if ",<" not in one] == []


def test_public_names() -> None:
    import rrtn.runtime

    names = ["FrontendSpec", "RrtnError", "Scorer", "freeze_support", "load_bundle", "log_mel"]
    assert rrtn.runtime.__all__ == names
    assert all(getattr(rrtn.runtime, name).__name__ == name for name in rrtn.runtime.__all__)


@pytest.mark.parametrize("command", [[RRTN], [sys.executable, "-m", "rrtn"]], ids=["rrtn", "python -m rrtn"])
def test_the_command_knows_its_version(command: list[str]) -> None:
    """The second is what torchrun starts."""
    done = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout == f"rrtn {rrtn.__version__}\n"
