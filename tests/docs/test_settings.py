"""docs/settings.md is what docs/generate_settings.py makes of the code; it has every setting."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from rrtn.train.config import Config, flat_settings

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
    assert on_page == list(flat_settings(Config().to_dict()))


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
