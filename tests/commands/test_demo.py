"""rrtn demo: which commands it calls. tests/integration/test_empty_folder.py runs them (slow)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rrtn.commands import demo

COMMANDS = ("train", "export", "score", "train", "evaluate", "export", "score", "report")


@pytest.mark.parametrize("code", [0, 3, 4])
def test_files_that_cannot_be_scored_end_no_demo(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def recorded(name: str, code: int = 0) -> Callable[..., None]:
        def command(*arguments: object, **options: object) -> None:
            called.append(name)
            if code:
                raise typer.Exit(code)

        return command

    for name in {*COMMANDS}:
        monkeypatch.setattr(demo, name, recorded(name, code if name == "score" else 0))
    if code:
        with pytest.raises(typer.Exit) as ended:
            demo.demo([str(tmp_path / "bad.wav")], out=tmp_path / "run")
        assert ended.value.exit_code == code
    else:
        demo.demo([str(tmp_path / "good.wav")], out=tmp_path / "run")
    assert called == [*COMMANDS][: len(called)]
    assert len(called) == (COMMANDS.index("score") + 1 if code == 4 else len(COMMANDS))
