"""What a user says of labels, captions and splits; kept with the data, so that training and evaluation go by the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

Policy = Literal["ignore", "zeros", "ones"]
POLICIES: Final[tuple[str, ...]] = get_args(Policy)
Section = Literal["impression", "findings"]
SECTIONS: Final[tuple[str, ...]] = get_args(Section)
LABELERS: Final = ("chexpert", "negbio")
HASH: Final = "hash"
OWN: Final = "own"
STATES: Final[Mapping[str, str]] = {"1": "present", "1.0": "present", "0": "absent", "0.0": "absent"}
UNCERTAIN: Final = ("-1", "-1.0")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRules:
    """How a collection's labels, texts and splits are read.

    Attributes:
        uncertain: what a label marked as uncertain counts as: `zeros` absent, `ones` present; `ignore` neither: the film
            stays, and where classifiers are trained or judged by that finding it is left out.
        blank: the same of findings that a report does not mention.
        section: of a report, that is the film's own text.
        labeler: whose labels are read where a collection has those of several.
        split: `hash` of the patient; `own`, the collection's; or the column of the table that names it.
        own_text: captions are the films' own texts, so that reports are to be read.

    Source: Irvin et al. 2019, CheXpert (U-Ignore, U-Zeros, U-Ones).
    """

    uncertain: Policy = "ignore"
    blank: Policy = "zeros"
    section: Section = "impression"
    labeler: str = "chexpert"
    split: str = HASH
    own_text: bool = False

    def __post_init__(self) -> None:
        """Refuse names that are none."""
        known = {"uncertain": POLICIES, "blank": POLICIES, "section": SECTIONS, "labeler": LABELERS}
        for option, names in known.items():
            if getattr(self, option) not in names:
                raise ValueError(
                    f"`--{option}` must be one of {', '.join(names)}, but got {getattr(self, option)!r}. Choose one."
                )

    @property
    def split_column(self) -> str | None:
        """The column of the table that names the split, where the user named one."""
        return None if self.split in (HASH, OWN) else self.split

    def graded(self, cells: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The findings that are present and those that are not known, of cells that hold 1, 0, -1 or nothing.

        Args:
            cells: by finding.

        Raises:
            ValueError: a cell holds something else; the message is its repr.
        """
        return _graded(self, tuple(cells), tuple(cells.values()))

    def state(self, cell: str) -> str:
        """`present`, `absent` or `unknown`.

        Raises:
            ValueError: the cell holds something else than 1, 0, -1 or nothing; the message is its repr.
        """
        if cell in STATES:
            return STATES[cell]
        if cell not in ("", *UNCERTAIN):
            raise ValueError(repr(cell))
        policy = self.uncertain if cell else self.blank
        return {"zeros": "absent", "ones": "present", "ignore": "unknown"}[policy]


@lru_cache(maxsize=2**14)  # the 223,414 rows of CheXpert are of far fewer kinds
def _graded(
    rules: LabelRules, findings: tuple[str, ...], cells: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    states = [rules.state(cell) for cell in cells]
    present, unknown = (
        tuple(finding for finding, state in zip(findings, states, strict=True) if state == wanted)
        for wanted in ("present", "unknown")
    )
    return present, unknown


AS_THEY_ARE: Final = LabelRules()
"""The rules where the user says nothing."""
