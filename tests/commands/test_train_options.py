"""The forms of `rrtn train --compile`: with a mode, and as it was before it took one."""

import pytest
from rrtn.cli import COMMANDS
from rrtn.commands.lazy_group import LazyCommands


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
