"""Help texts name what the settings take, without torch."""

import subprocess
import sys
from typing import get_args

import pytest
from rrtn.cli import app
from rrtn.commands import choices
from rrtn.train.config import Method
from rrtn.train.method.encoders import ENCODERS
from typer.testing import CliRunner


def test_the_names_are_those_of_the_registries() -> None:
    assert choices.ENCODERS == tuple(ENCODERS)
    assert choices.METHODS == get_args(Method)


@pytest.mark.parametrize("command", ["train", "table2"])
def test_help_has_each_name(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert [name for name in (*ENCODERS, *get_args(Method)) if name not in shown] == []


def test_it_imports_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import rrtn.commands.choices"
    subprocess.run([sys.executable, "-c", code], check=True)
