"""The commands of README's section on clusters, as they stand there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK, TYPED = "    ", "      "


@dataclass(frozen=True)
class Command:
    """A command of the person's own machine, and what is typed in the shell that it opens."""

    line: str
    typed: tuple[str, ...] = ()


def blocks(heading: str) -> list[list[Command]]:
    """The blocks of commands below a heading of README, to the next one; a line that goes on behind a backslash is one.

    Raises:
        ValueError: README has no such heading.
    """
    text = (ROOT / "README.md").read_text()
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    if section is None:
        raise ValueError(f"`heading` must be one of README's, but got {heading!r}. Correct the test or README.")
    whole = re.sub(r"\\\n +", "", section[1])
    paragraphs = [paragraph.splitlines() for paragraph in whole.strip("\n").split("\n\n")]
    return [_commands(lines) for lines in paragraphs if lines[0].startswith(BLOCK)]


def _commands(lines: list[str]) -> list[Command]:
    commands: list[Command] = []
    for line in lines:
        if line.startswith(TYPED):
            commands[-1] = Command(commands[-1].line, (*commands[-1].typed, line.strip()))
        else:
            commands.append(Command(line.strip()))
    return commands
