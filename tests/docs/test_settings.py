"""docs/settings.md is what docs/generate_settings.py makes of the code; it has every setting."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from rrtn.train.config import _WRITTEN_WHERE_USED, Config
from rrtn.train.sections import flat_settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_settings", DOCS / "generate_settings.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(generator: ModuleType) -> None:
    assert (DOCS / "settings.md").read_text() == generator.page(), "run: python docs/generate_settings.py"


def test_the_page_has_every_setting() -> None:
    on_page = re.findall(r"^\| `([a-z_.]+)` \|", (DOCS / "settings.md").read_text(), flags=re.M)
    own = [item.name for item in dataclasses.fields(Config)]
    parts = {name: part for name, part in vars(Config()).items() if dataclasses.is_dataclass(part)}
    inside = [f"{name}.{item.name}" for name, part in parts.items() for item in dataclasses.fields(part)]
    assert on_page == [*(name for name in own if name not in parts), *inside]
    left_out = {*on_page} - {*flat_settings(Config().to_dict())}  # they are written where they are used
    assert left_out <= {"frontend.trim", *(f"data.{name}" for name in _WRITTEN_WHERE_USED)}


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ("--lr", ("--lr", "", "")),
        ("--data: a folder; empty for none", ("--data", "", "a folder; empty for none")),
        ("samples; also the window", ("", "samples", "also the window")),
        ("fixed: as they did (docs/method.md, point 2)", ("", "", "fixed: as they did")),
    ],
)
def test_what_a_comment_says(generator: ModuleType, comment: str, text: tuple[str, str, str]) -> None:
    assert generator.text_of_comment(comment) == text
