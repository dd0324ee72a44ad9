"""What is wrong with a collection of films, gathered while it is read, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

NUM_NAMED = 3
"""How many offenders a message names where there are many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that keeps a collection from being prepared.

    Attributes:
        rule: what must hold, in the words of a message.
        came: what is there instead.
        remedy: what to do, in whole sentences.
        file: name of the label file, or path of the film.
        line: in the label file, where the problem lies on one.
    """

    rule: str
    came: str
    remedy: str
    file: str = ""
    line: int | None = None


class CollectionError(ValueError):
    """A collection of films cannot be prepared; the message tells the first problem and how many others there are."""


@dataclass
class Ledger:
    """The problems of a collection, and what is said of it, in the order in which they are found.

    Attributes:
        patient: gather the problems of the whole collection; otherwise each step of reading ends with its first.
        problems: what keeps the collection from being prepared.
        said: notes for the user, a sentence each.
        rejected: films that could be left out, if few enough are.
    """

    patient: bool = False
    problems: list[Problem] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    rejected: list[Problem] = field(default_factory=list)

    def refuse(self, rule: str, came: str, remedy: str, *, file: str = "", line: int | None = None) -> None:
        """Note a problem.

        Args:
            rule: what must hold, in the words of a message.
            came: what is there instead.
            remedy: what to do, in whole sentences.
            file: name of the label file, or path of the film.
            line: in the label file, where the problem lies on one.
        """
        self.problems.append(Problem(rule=rule, came=came, remedy=remedy, file=file, line=line))

    def reject(self, rule: str, came: str, remedy: str, *, file: str = "", line: int | None = None) -> None:
        """Note a film that could be left out, if few enough are.

        Args:
            rule: what must hold, in the words of a message.
            came: what is there instead.
            remedy: what to do, in whole sentences.
            file: name of the label file, or path of the film.
            line: in the label file, where the problem lies on one.
        """
        self.rejected.append(Problem(rule=rule, came=came, remedy=remedy, file=file, line=line))

    def judge(self, num_films: int, max_share: float) -> None:
        """Make problems of all films that were rejected, if they are more than a share of the collection.

        Args:
            num_films: of the collection.
            max_share: that may be left out, from 0 to 1.
        """
        if len(self.rejected) > max_share * num_films:
            self.problems += self.rejected
            self.rejected = []

    def say(self, sentence: str) -> None:
        """Note what was understood, merged or left out, for the reader of the data set."""
        self.said.append(sentence)

    def settle(self) -> None:
        """End a step of reading.

        Raises:
            CollectionError: there are problems, and the ledger is not patient.
        """
        if not self.patient:
            self.stop()

    def stop(self) -> None:
        """End a step that no other can follow where there are problems.

        Raises:
            CollectionError: there are problems.
        """
        if self.problems:
            first, *others = described(self.problems)
            more = f" ({count_of(len(others), 'other problem')}; --check lists all.)" if others else ""
            raise CollectionError(first + more)


def described(problems: Iterable[Problem]) -> list[str]:
    """A message for each rule that is broken, with the number of places and the first of them."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.rule, problem.remedy), []).append(problem)
    return [
        f"{rule}, but got {_listed(_distinct(cause.came for cause in group))}{_places(group)}. {remedy}"
        for (rule, remedy), group in groups.items()
    ]


def listed(names: Iterable[object]) -> str:
    """The first few of many names, and how many more there are."""
    return _listed([str(name) for name in names])


def _places(group: Sequence[Problem]) -> str:
    first = group[0]
    if len(group) == 1:
        return f" in line {first.line} of {first.file}" if first.line else f" in {first.file}" if first.file else ""
    if first.line is None:
        return f" in {len(group)} films: {listed(problem.file for problem in group)}"
    return f" in {len(group)} rows of {first.file} (lines {listed(problem.line for problem in group)})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def count_of(number: int, what: str) -> str:
    """A number of things: "1 film", "2 films"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
