"""The forms of `rrtn train --compile`: with a mode, and as it was before it took one; and `--fraction`."""

import json
import shlex
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


def test_a_dry_run_names_the_command_that_decodes(corpus: Path, tmp_path: Path) -> None:
    """As it is pasted: with what was said of the place and the labels, but for what data.toml says."""
    table, audio = tmp_path / "my ratings.csv", corpus / "wav"
    table.write_bytes((corpus / "data_info.csv").read_bytes())
    (tmp_path / "data.toml").write_text(f"audio = '{audio}'\n")
    (own := tmp_path / "own").mkdir()
    (own / "ratings.csv").write_bytes(table.read_bytes())
    (own / "data.toml").write_text(f"csv = 'ratings.csv'\naudio = '{audio}'\n")
    settings = tmp_path / "my.toml"
    settings.write_text(f"[data]\ndir = '{corpus}'\ntargets = ['Awe', 'Fear']\nchannel = 1\n")
    for options, check in (
        (["--data", str(corpus)], [str(corpus)]),
        (["--csv", str(table), "--scale", "0:2"], ["--csv", str(table), "--scale", "0:2"]),
        (["--config", str(settings)], [str(corpus), "--targets", "Awe,Fear", "--channel", "1"]),
        (["--data", str(own)], [str(own)]),
    ):
        ended = CliRunner().invoke(app, ["train", *options, "--dry-run"])
        line = ended.stderr.splitlines()[-1]
        assert line == f"no audio was decoded: rrtn data check {shlex.join(check)} does"
        assert CliRunner().invoke(app, ["data", "check", *check]).exit_code == 0
    assert "no audio" not in CliRunner().invoke(app, ["train", "--dry-run"]).stderr
