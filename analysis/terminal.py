"""The terminal: the console of all commands, how they fail, and how paths are printed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

PLAIN_WIDTH = 150


class Interrupted(KeyboardInterrupt):
    """A signal told the process to end."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        """Remember the signal's number."""
        super().__init__(number)
        self.exit_code = 128 + number
        """As shells have it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""


def new_console(*, stderr: bool = False) -> Console:
    """The terminal, or lines of a readable width where the output goes to a file."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what was wrong, and end."""
    new_console(stderr=True).print(f"[red]error[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def explained(how_to_go_on: Callable[[], str] = str) -> Iterator[None]:
    """End the command by the message of what goes wrong in the block, without a traceback.

    Args:
        how_to_go_on: what to say where it is interrupted; asked then.
    """
    try:
        yield
    except typer.Exit:  # a RuntimeError as well
        raise
    except (ValueError, OSError, RuntimeError) as error:
        fail(_with_notes(str(error), error))
    except KeyboardInterrupt as error:
        code = error.exit_code if isinstance(error, Interrupted) else Interrupted().exit_code
        fail(f"{_with_notes('Interrupted.', error)} {how_to_go_on()}".strip(), code)


def _with_notes(said: str, error: BaseException) -> str:
    """What else went wrong beside an error stands in its notes, a sentence each."""
    return " ".join([said, *getattr(error, "__notes__", ())])


def relative(path: Path) -> Path:
    """The path as the user would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
