"""What an error says to do about a package that is missing."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rrtn.runtime.errors import install_command

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_what_the_extra_needs_and_not_rrtn(extra: str) -> None:
    """No index has rrtn, and whatever stands there under its name is somebody else's."""
    command = install_command(extra)
    assert command.startswith('pip install "')
    named = command.removeprefix("pip install ").strip('"').split('" "')
    assert [Requirement(one) for one in named] == [Requirement(one) for one in EXTRAS[extra]]


def test_an_extra_has_no_other_conditions() -> None:
    """They would be printed whatever the machine."""
    assert [one for requirements in EXTRAS.values() for one in requirements if ";" in one] == []


def test_where_rrtn_is_not_installed_the_checkout_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", missing)
    assert install_command("formats") == 'in the checkout of rrtn: pip install ".[formats]"'


def test_nothing_reads_the_metadata_before_it_is_needed() -> None:
    code = "import sys, rrtn.runtime.backends.registry, rrtn.runtime.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "importlib.metadata" not in loaded.split()
