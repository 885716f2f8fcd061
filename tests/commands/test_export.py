"""rrtn export: what it refuses before it loads anything."""

from pathlib import Path

import pytest
from rrtn.commands.export import _check_apart
from rrtn.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("triton", "web", "came"),
    [
        ("out", "out", "the place of --triton"),
        ("x/../out", "out", "the place of --triton"),
        ("out", "x/../out/page", "is in --triton "),
        ("link", "out", "the place of --triton"),
        ("out", "link/page", "is in --triton "),
    ],
)
def test_one_place_is_one_however_it_is_written(
    triton: str, web: str, came: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(ConfigError, match=came):
        _check_apart({"the bundle": tmp_path / "bundle", "--triton": Path(triton), "--web": Path(web)})
