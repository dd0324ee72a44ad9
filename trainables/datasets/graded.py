"""Tables with a column for each finding, that hold 1, 0, -1 or nothing, as CheXpert's labeller writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trainables.datasets.problems import Ledger
from trainables.datasets.rows import TableRow
from trainables.datasets.rules import LabelRules

CHEXPERT: Final = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The findings of CheXpert's labeller, and of NegBio's for the same reports."""
Graded = tuple[tuple[str, ...], tuple[str, ...]]
"""Findings that are present, and those that are not known."""


def graded_row(row: TableRow, findings: Sequence[str], rules: LabelRules, ledger: Ledger, *, table: str) -> Graded:
    """What a row says of each finding; none are present after a cell was refused.

    "No Finding" is said or not said: it is never unknown, and where it is not said it is absent by every policy.

    Args:
        row: of the table.
        findings: its columns of findings.
        rules: what uncertain and blank cells count as.
        ledger: takes problems.
        table: its name, for messages.
    """
    cells = {finding: row.values[finding] for finding in findings if finding != "No Finding"}
    try:
        present, unknown = rules.graded(cells)
    except ValueError as error:
        rule = "`labels` must be 1, 0, -1 or nothing"
        ledger.refuse(rule, str(error), "Use the table as it was released.", file=table, line=row.line)
        return (), ()
    if row.values.get("No Finding") in ("1", "1.0"):
        present = ("No Finding", *(name for name in present if name == "Support Devices"))
        unknown = tuple(name for name in unknown if name == "Support Devices")
    return present, unknown
