"""A group of commands whose modules are imported only when their commands are called."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperGroup


class ListedCommand(NamedTuple):
    """A command before its module is loaded."""

    module: str  # in commands/; the function has the name of the command, and `Command` may be its class
    help: str  # first line of the function's docstring


class LazyCommands(Mapping[str, Any]):
    """Commands by name. Looking one up imports its module."""

    def __init__(self, listed: Mapping[str, ListedCommand]) -> None:
        self._listed = listed

    def __getitem__(self, name: str) -> Any:
        module = importlib.import_module(f".{self._listed[name].module}", __package__)
        found = getattr(module, name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=getattr(module, "Command", None))(found)
            found = alone
        command = typer.main.get_command(found)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def lazy_group(listed: Mapping[str, ListedCommand]) -> type[TyperGroup]:
    """A group for typer's `cls`. Its help is made of `listed` alone."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = cast("dict[str, Any]", LazyCommands(listed))

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.help) for name, command in listed.items()])

    return LazyGroup
