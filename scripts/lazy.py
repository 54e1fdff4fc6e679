"""Commands whose modules are imported when they are called, so that the list of commands needs no torch."""

import ast
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from prune_env.commands.common import app_of, notice
from prune_env.common.text import one_screen

UsageError: Any = typer.BadParameter.__base__
"""The base of errors in what the user typed; typer brings its own copy of click."""


class LazyCommand(TyperCommand):
    """Stands for a command in the list of commands; its module is imported when it is called.

    Args:
        name: The name of the command.
        module: The file of this folder that holds it, in a function of the same name, without suffix.
    """

    def __init__(self, name: str, module: str) -> None:
        super().__init__(name, help=_first_line(module))
        self.module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself."""
        return command_of(self.module).make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """A group of `LazyCommand`; after them come the commands that typer knows."""

    modules: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, commands: Mapping[str, Any] | None = None, **settings: Any) -> None:
        lazy = {name: LazyCommand(name, module) for name, module in self.modules.items()}
        super().__init__(commands={**lazy, **(commands or {})}, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; Ctrl-C ends it with a line where the command has none of its own.

        What the user typed is repeated in no more than one screen.
        """
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.message = one_screen(error.message)
            raise
        except KeyboardInterrupt:
            notice("Interrupted. Every file that was written is whole.")
            raise typer.Exit(130) from None


def command_of(module: str) -> Any:
    """The command that a file of this folder holds; imports the file."""
    found = import_module(f"{__package__}.{module}")
    return typer.main.get_command(app_of(getattr(found, module), getattr(found, "COMMAND_CLASS", None)))


def _first_line(module: str) -> str:
    """The first line of a command's docstring, read from its file, because the import takes seconds."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == module]
    return (ast.get_docstring(functions[0]) or "").partition("\n")[0]
