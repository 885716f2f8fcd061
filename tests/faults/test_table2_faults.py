"""`rrtn table2` that is killed, told to stop, or meets a full disk goes on to the bytes of a table
that nobody has touched.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rrtn = Callable[..., Any]
Outcome = Callable[[Path], dict[str, object]]
METHODS = ("vanilla", "rrtn")
RUNS = tuple(f"resnet18-{method}/seed0" for method in METHODS)
SETTINGS = (
    "--encoders",
    "resnet18",
    "--methods",
    ",".join(METHODS),
    "--seeds",
    1,
    "--epochs",
    2,
    "--batch-size",
    8,
)


@pytest.fixture(scope="module")
def flags(corpus: Path) -> tuple[object, ...]:
    """15 Train clips: one step an epoch, two a run."""
    return ("table2", "--data", corpus, *SETTINGS, "--device", "cpu", "--out", "table")


@pytest.fixture(scope="module")
def expected(
    server: Any, flags: tuple[object, ...], outcome: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the table and its runs come to."""
    folder = tmp_path_factory.mktemp("whole")
    ended = server.start(*flags, cwd=folder).wait()
    assert ended.code == 0, ended.err
    return come_to(folder / "table", outcome)


def come_to(table: Path, outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {name: outcome(table / name) for name in RUNS}
    return found | {
        "table2.md": (table / "table2.md").read_text(),
        "table2.json": json.loads((table / "table2.json").read_bytes()),
    }


@pytest.mark.parametrize(
    "place",
    [
        "train.step:sigkill:3",
        pytest.param("train.validate:sigkill:4", marks=pytest.mark.slow),
        pytest.param("write.replace:sigkill:1", marks=pytest.mark.slow),
        "write.replace:sigkill:20",
    ],
)
def test_killed_and_run_again(
    rrtn: Rrtn,
    outcome: Outcome,
    flags: tuple[object, ...],
    expected: dict[str, Any],
    tmp_path: Path,
    place: str,
) -> None:
    assert rrtn(*flags, RRTN_FAILPOINT=place).code == -signal.SIGKILL
    assert rrtn(*flags).code == 0
    assert come_to(tmp_path / "table", outcome) == expected
    assert list((tmp_path / "table").rglob("*.tmp")) == []


@pytest.mark.parametrize(
    ("place", "code", "told"),
    [
        (
            "train.step:sigterm:4",
            143,
            "run the same command again: it continues where this one stopped",
        ),
        pytest.param(
            "train.step:sigint:4",
            130,
            "resnet18-rrtn/seed0 | stopped by a signal at step 2",
            marks=pytest.mark.slow,
        ),
        ("write.fsync:enospc:9", 4, "No space left on device"),
    ],
)
def test_stopped_and_run_again(
    rrtn: Rrtn,
    outcome: Outcome,
    flags: tuple[object, ...],
    expected: dict[str, Any],
    tmp_path: Path,
    place: str,
    code: int,
    told: str,
) -> None:
    ended = rrtn(*flags, RRTN_FAILPOINT=place)
    assert ended.code == code, ended.err
    assert ended.err.splitlines()[-1].startswith("rrtn: ")
    assert told in ended.err.splitlines()[-1]
    assert rrtn(*flags).code == 0
    assert come_to(tmp_path / "table", outcome) == expected


def test_a_dry_run_trains_nothing_and_other_settings_are_refused(
    rrtn: Rrtn, flags: tuple[object, ...], tmp_path: Path
) -> None:
    planned = json.loads(rrtn(*flags, "--dry-run", "--json").out)
    assert [run["folder"] for run in planned["runs"]] == [f"table/{name}" for name in RUNS]
    assert {run["state"] for run in planned["runs"]} == {"not run"}
    assert planned["seconds_to_go"] is None
    assert list(tmp_path.iterdir()) == []
    assert rrtn(*flags, RRTN_FAILPOINT="train.step:sigterm:4").code == 143
    planned = json.loads(rrtn(*flags, "--dry-run", "--json").out)
    assert [run["state"] for run in planned["runs"]] == ["finished", "begun, 1 of 2 epochs"]
    assert planned["seconds_to_go"] > 0
    ended = rrtn(*flags, "--epochs", 3)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(
        "rrtn: table/resnet18-vanilla/seed0 | made with other settings: optim.epochs"
    )
