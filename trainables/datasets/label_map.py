"""A user's own names for findings: a CSV file with the columns label and finding."""

from __future__ import annotations

from pathlib import Path

from trainables.datasets.problems import Ledger
from trainables.datasets.rows import is_missing, read_rows
from trainables.datasets.vocabulary import KNOWN, QUOTES, SEPARATORS, contradicts_itself, fold, misspelt

SEPARATOR = "|"
OWN_TABLE = "Name its columns so."


def read_label_map(file: Path, ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """What each label of a file stands for.

    Args:
        file: with a row for each label; several findings of one label are separated by `|`. Known findings may be in
            any spelling, others are taken as they are written.
        ledger: takes rows that name nothing or several findings as one, and labels that have two meanings.

    Raises:
        FileNotFoundError: there is no such file.
        CollectionError: it is no CSV file with these columns.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"`--label-map` must be a CSV file with the columns label and finding, but got {str(file)!r}, which is "
            "none. Check the path."
        )
    meanings: dict[str, tuple[str, ...]] = {}
    folded: dict[str, tuple[str, ...]] = {}
    for row in read_rows(file, (("label",), ("finding",)), ledger, OWN_TABLE):
        label = row.values["label"]
        findings = tuple(
            KNOWN.get(fold(finding), finding.strip())
            for finding in row.values["finding"].split(SEPARATOR)
            if finding.strip()
        )
        if not label or not findings:
            rule = "`--label-map` must name a label and its finding in every row"
            ledger.refuse(rule, repr(tuple(row.values.values())), "Complete it.", file=file.name, line=row.line)
        elif folded.setdefault(fold(label), findings) != findings:
            rule = "`--label-map` must give each label one meaning"
            ledger.refuse(rule, f"another for {label!r}", "Remove one.", file=file.name, line=row.line)
        elif wrong := _wrong(findings):
            rule = "`--label-map` must name findings as a film has them"
            ledger.refuse(rule, wrong[0], wrong[1], file=file.name, line=row.line)
        else:
            meanings[label] = findings
    ledger.settle()
    return meanings


def _wrong(findings: tuple[str, ...]) -> tuple[str, str] | None:
    """What keeps findings from being those of a film, and the remedy; the same as for labels of films."""
    for finding in findings:
        if is_missing(finding) or not any(sign.isalpha() for sign in finding):
            return f"{finding!r}, in which {finding!r} names nothing", "Write the finding's name."
        if finding[0] in QUOTES:
            return repr(finding), f"Write findings without brackets and quotes, separated by {SEPARATOR!r}."
        if set(finding) & set(SEPARATORS):
            return f"{finding!r}, which may be several findings", f"Separate findings by {SEPARATOR!r}."
        if fold(finding) not in KNOWN and (near := misspelt(finding)):
            return f"{finding!r}, which looks like {near}", "Write it so, or give it a name that is less similar."
    if contradicts_itself(findings):
        return f"{SEPARATOR.join(findings)!r}, which contradicts itself", "Remove one or the other."
    return None
