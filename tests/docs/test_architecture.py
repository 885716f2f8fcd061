"""docs/architecture.md and the packages' docstrings name what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
ROOMS = ("commands", "export", "train", "runtime")
PACKAGES = sorted(path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py"))
MODULES = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def names_of_the_code() -> set[str]:
    """Every module, and every class at the top of one."""
    found = {path.stem for path in MODULES}
    for path in MODULES:
        found |= {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    return found


def glossary() -> dict[str, str]:
    """Term -> the class or module that it stands for."""
    section = PAGE.partition("## One word, one thing")[2]
    return dict(re.findall(r"^\| ([a-z][a-z ]*) \| .* \| `(\w+)` \|$", section, flags=re.M))


def test_each_term_is_a_class_or_a_module() -> None:
    assert len(glossary()) >= 20
    assert set(glossary().values()) <= names_of_the_code()


def test_each_file_and_room_that_is_named_is_there() -> None:
    paths = set(re.findall(r"`([a-z_0-9/]+(?:\.py|/))`", PAGE)) - {"formats.py"}
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = set(re.findall(r"`(?:[a-z]+/)?([a-z_0-9]+)`", PAGE.partition("## To add")[0]))
    assert sorted(modules - {path.stem for path in MODULES} - {"frontend", "rrtn"}) == []


def test_each_class_that_is_named_is_there() -> None:
    classes = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE))
    assert len(classes) > 15
    assert sorted(classes - names_of_the_code() - {"COMMANDS", "ENCODERS", "MNN", "Method", "README"}) == []


def test_a_public_class_has_its_name_for_itself() -> None:
    """Flags in commands/options.py have the names of what they stand for."""
    places: dict[str, list[str]] = {}
    for path in (path for path in MODULES if path != ROOT / "commands/options.py"):
        for node in ast.parse(path.read_text()).body:
            for name in public_types(node):
                places.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def public_types(node: ast.stmt) -> list[str]:
    """Names of classes, and of aliases of types."""
    match node:
        case ast.ClassDef(name=name):
            names = [name]
        case ast.Assign(targets=[ast.Name(id=name)]):
            names = [name]
        case _:
            names = []
    return [name for name in names if re.fullmatch("[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name)]


def test_the_drawing_has_every_room() -> None:
    drawing = PAGE.partition("```")[2].partition("```")[0]
    rooms = {f"{package.name}/" for package in PACKAGES}
    assert rooms <= set(re.findall(r"[a-z]+/", drawing))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_package_lists_its_modules(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    lines = re.findall(r"^\s*([a-z_0-9]+)(?:, [a-z_0-9, ]+)?\s{2,}\S", docstring, flags=re.M)
    listed = set(lines)
    assert len(lines) == len(listed), "one is listed twice"
    assert sorted(modules - listed) == []
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(listed - modules - rooms) == []


def test_the_recipe_of_a_kind_of_file_names_all_that_know_mnn() -> None:
    """MNN's is the kind that was added last: whatever names it, the next one touches, too."""
    recipes = "".join(re.findall(r"^\| a (?:backend|kind of file).*$", PAGE, flags=re.M))
    know = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if re.search(r"""["']mnn["']|\bMNN(_\w+)?\b""", path.read_text())
        and not path.stem.startswith(("mnn", "__init__", "host"))
    }
    assert len(know) > 8
    assert sorted(know - set(re.findall(r"`([\w/]+\.py)`", recipes))) == []
