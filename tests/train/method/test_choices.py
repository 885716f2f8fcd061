"""The names of settings stand without torch: help texts and refusals need them at once."""

import subprocess
import sys
from typing import get_args

import pytest
from rrtn.cli import app
from rrtn.train.config import METHODS, Method
from rrtn.train.method.choices import ENCODER_NAMES
from rrtn.train.method.encoders import ENCODERS
from typer.testing import CliRunner


def test_the_names_are_those_of_the_registries() -> None:
    assert tuple(ENCODERS) == ENCODER_NAMES
    assert get_args(Method) == METHODS


@pytest.mark.parametrize("command", ["train", "table2"])
def test_help_has_each_name(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert [name for name in (*ENCODERS, *METHODS) if name not in shown] == []


@pytest.mark.parametrize(
    "module", ["train.method.choices", "train.config", "train.config_file", "train.request", "export.wanted"]
)
def test_n19_settings_are_read_and_checked_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import rrtn.{module}"
    subprocess.run([sys.executable, "-c", code], check=True)
