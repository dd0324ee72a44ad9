"""The contract of an export format: what it can hold, how it is written, and what one does with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How an export is written.

    Attributes:
        half: weights as float16, in half the space; the scheduler and tokens stay as they are.
        origin: where the adapter comes from, in words by key, such as its place on a front; for the files' metadata.
    """

    half: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)


class ExportFormat(ABC):
    """A way to write adapted models for other programs; one object in the table of formats.

    Its file imports nothing slow at its top, so that commands know all formats at once; torch is imported where an
    adapter is at hand.
    """

    name: ClassVar[str]
    """Its key in the table."""

    @abstractmethod
    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """Refuse an adapter that the format cannot hold.

        Args:
            models: the base with the adapter attached, not merged.
            strategy: the strategy that is attached.

        Raises:
            ValueError: the format cannot hold it.
        """

    @abstractmethod
    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write an adapted model, or nothing where the format cannot hold it.

        Args:
            models: the base with the adapter attached, not merged; left as it is.
            strategy: the strategy that is attached.
            folder: where to write; made if need be.
            writing: how; as float32 and with nothing said of its origin where it is left out.

        Raises:
            ValueError: as `expect_fits`, or a weight is too large for float16.
        """

    @abstractmethod
    def next_steps(self, folder: Path, base: str) -> str:
        """What the user can do with an export, in lines for the terminal.

        Args:
            folder: where `write` wrote it.
            base: the base model that was adapted, by name or folder.
        """
