"""`rrtn data import --json`."""

import json
from pathlib import Path

from rrtn.cli import app
from typer.testing import CliRunner


def test_an_import_has_its_notes_in_its_document(corpus: Path, tmp_path: Path) -> None:
    """Those that are printed, too."""
    arguments = ["data", "import", str(corpus), str(tmp_path / "out"), "--split", "0.5,0.5,0", "--json"]
    ended = CliRunner().invoke(app, arguments)
    document = json.loads(ended.stdout)
    assert document.keys() == {"dir", "clips", "targets", "notes"}
    assert document["clips"].keys() == {"Train", "Val", "Test"}
    assert document["notes"][0].startswith("split by whole speakers, seed 0: Train ")
    assert all(f"note: {note}" in ended.stderr.splitlines() for note in document["notes"])
