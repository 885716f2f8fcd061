"""The forms of `rrtn train --compile`: with a mode, and as it was before it took one; and `--fraction`."""

import json
from pathlib import Path

import pytest
from rrtn.cli import COMMANDS, app
from rrtn.commands.lazy_group import LazyCommands
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ([], None),
        (["--compile"], "default"),
        (["--compile", "--json"], "default"),
        (["--no-compile"], "off"),
        (["--compile", "auto"], "auto"),
        (["--compile=reduce-overhead"], "reduce-overhead"),
        (["--no-compile", "--compile", "max-autotune"], "max-autotune"),
    ],
    ids=str,
)
def test_the_mode_of_compile(arguments: list[str], mode: str | None) -> None:
    context = LazyCommands(COMMANDS)["train"].make_context("train", [*arguments, "--epochs", "2"])
    assert context.params["compile_"] == mode
    assert context.params["epochs"] == 2


def test_a_share_of_the_training_clips(corpus: Path) -> None:
    arguments = ["train", "--data", str(corpus), "--fraction", "0.5", "--dry-run", "--json"]
    answer = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert answer["config"]["data"]["fraction"] == 0.5
