"""The contract of an export format: what it can hold, how it is written, and what one does with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy


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
            models: The base with the adapter attached, not merged.
            strategy: The strategy that is attached.

        Raises:
            ValueError: the format cannot hold it.
        """

    @abstractmethod
    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path) -> None:
        """Write an adapted model, or nothing where the format cannot hold it.

        Args:
            models: The base with the adapter attached, not merged; left as it is.
            strategy: The strategy that is attached.
            folder: Where to write; made if need be.

        Raises:
            ValueError: as `expect_fits`.
        """

    @abstractmethod
    def next_steps(self, folder: Path, base: str) -> str:
        """What the user can do with an export, in lines for the terminal.

        Args:
            folder: Where `write` wrote it.
            base: The base model that was adapted, by name or folder.
        """
