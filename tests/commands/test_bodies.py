"""A command parses, calls one function of a layer, and prints: its body stays short."""

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rrtn.cli import COMMANDS
from rrtn.commands.lazy_group import LazyCommands

LONGEST = 25  # lines


def registered() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and function of every command, those of groups included."""
    commands = LazyCommands(COMMANDS)
    for name in COMMANDS:
        command = commands[name]
        for part in getattr(command, "commands", {name: command}).values():
            yield f"{name} {part.name}", inspect.unwrap(part.callback)


def lines_of_body(source: str) -> int:
    """From the first statement behind the docstring to the end."""
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    assert tree.end_lineno
    return tree.end_lineno - body[0].lineno + 1


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in registered()])
def test_the_body_of_a_command_is_short(function: Callable[..., Any]) -> None:
    assert lines_of_body(inspect.getsource(function)) <= LONGEST


def test_all_commands_are_looked_at() -> None:
    names = [name for name, _ in registered()]
    assert {"data synth", "data check", "data import", "train train", "score score"} <= set(names)
    assert len(names) == len(COMMANDS) + 2  # data has three


def test_parameters_and_docstring_do_not_count() -> None:
    lines = ["def one(", "    number: int,", ") -> int:", '    """Two', '    lines."""', "    number += 1"]
    source = "\n".join([*lines, "", "    return number"])
    assert lines_of_body(source) == 3
