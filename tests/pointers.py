"""checkpoint.json with other content, as an rrtn wrote it that gave it no hash of its own."""

import json
from collections.abc import Callable
from pathlib import Path


def rewrite_pointer(path: Path, edit: Callable[[str], str]) -> None:
    """Edits the text; what was changed is not seen by its hash."""
    document = json.loads(edit(path.read_text()))
    document.pop("digest", None)
    path.write_text(json.dumps(document))
