"""A data card: what a prepared data set holds, as a page, as text and as JSON, for those who train on it or judge it."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from trainables.datasets.base import SPLITS
from trainables.datasets.store import PreparedDataset, PreparedSplit

CARD_NAME: Final = "data_card"
AGE_BANDS: Final = ((0, 17), (18, 39), (40, 59), (60, 79), (80, 120))
UNKNOWN: Final = "not known"
Table = Mapping[str, Mapping[str, int]]
"""Counts by row and column."""


def card_of(data: PreparedDataset) -> dict[str, Any]:
    """What the card says, as JSON has it: all counts are of films, but those of patients."""
    splits = {name: data.split(name) for name in SPLITS}
    findings = sorted(set().union(*(split.num_with() for split in splits.values())))
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "resolution_px": data.resolution_px,
        "conditions": list(data.conditions),
        "captions": data.prompts.template or "each film's own text",
        "rules": {name: getattr(data.rules, name) for name in ("uncertain", "blank", "split", "section", "labeler")},
        "size": _by_split(splits, lambda split: {"films": len(split), "patients": len(set(split.patient_ids))}),
        "findings": {name: {of: split.num_with()[name] for of, split in splits.items()} for name in findings},
        "not_known": {name: {of: _num_unknown(split, name) for of, split in splits.items()} for name in findings},
        "together": _together([names for split in splits.values() for names in split.conditions], data.conditions),
        "view": _by_split(splits, lambda split: _counted(split.views)),
        "sex": _by_split(splits, lambda split: _counted(split.sexes)),
        "age": _by_split(splits, lambda split: _counted(map(_band, split.ages), [_band(low) for low, _ in AGE_BANDS])),
        "said": list(data.said),
    }


def write_card(data: PreparedDataset) -> None:
    """Write `data_card.json`, `.md` and `.html` into the data set's folder."""
    card = card_of(data)
    for ending, content in (("json", json.dumps(card, indent=2)), ("md", as_text(card)), ("html", as_page(card))):
        (data.folder / f"{CARD_NAME}.{ending}").write_text(content, encoding="utf-8")


def tables_of(card: Mapping[str, Any]) -> dict[str, Table]:
    """The card's tables by title."""
    return {
        "Films and patients": card["size"],
        "Films with each finding": card["findings"],
        "Films on which a finding is not known": {
            name: counts for name, counts in card["not_known"].items() if any(counts.values())
        },
        "Films with two conditions": card["together"],
        "View": card["view"],
        "Sex": card["sex"],
        "Age": card["age"],
    }


def as_text(card: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    lines = [f"# {card['name']}, {card['resolution_px']} px", "", *(f"- {line}" for line in _about(card)), ""]
    for title, table in tables_of(card).items():
        if table:
            head, rows = _cells(table)
            lines += [f"## {title}", "", _line(head), _line(["---"] * len(head)), *map(_line, rows), ""]
    return "\n".join([*lines, *(["## Notes", ""] if card["said"] else []), *(f"- {note}" for note in card["said"]), ""])


def as_page(card: Mapping[str, Any]) -> str:
    """The card as one HTML page, with every text escaped."""
    title = html.escape(f"{card['name']}, {card['resolution_px']} px")
    parts = [f"<h1>{title}</h1>", _list(_about(card))]
    for name, table in tables_of(card).items():
        if table:
            head, rows = _cells(table)
            body = "".join(_row(row, "td") for row in rows)
            parts.append(f"<h2>{html.escape(name)}</h2><table>{_row(head, 'th')}{body}</table>")
    parts += ["<h2>Notes</h2>", _list(card["said"])] if card["said"] else []
    sheet = '<h2>Training films</h2><img src="sheet.png" alt="training films of each condition">'
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{STYLE}{"".join(parts)}{sheet}</html>'


STYLE: Final = (
    "<style>body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}</style>"
)


def _about(card: Mapping[str, Any]) -> list[str]:
    rules = ", ".join(f"{name} {value}" for name, value in card["rules"].items())
    return [
        f"Fingerprint: {card['fingerprint']}",
        f"Evaluated by: {', '.join(card['conditions'])}",
        f"Captions: {card['captions']}",
        f"Rules: {rules}",
    ]


def _by_split(splits: Mapping[str, PreparedSplit], counts: Any) -> Table:
    """Counts of each split, with what is counted as rows."""
    columns = {name: counts(split) for name, split in splits.items()}
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    return {row: {name: column.get(row, 0) for name, column in columns.items()} for row in rows}


def _counted(values: Iterable[str | None], order: Sequence[str] = ()) -> dict[str, int]:
    counts = Counter(UNKNOWN if value is None else value for value in values)
    rows = [*order, *sorted(set(counts) - {*order, UNKNOWN}), *([UNKNOWN] if counts[UNKNOWN] else [])]
    return {row: counts[row] for row in rows}


def _band(age: int | None) -> str:
    return next((f"{low} to {high}" for low, high in AGE_BANDS if age is not None and low <= age <= high), UNKNOWN)


def _num_unknown(split: PreparedSplit, finding: str) -> int:
    return sum(finding in findings for findings in split.unknown)


def _together(findings: Sequence[Sequence[str]], conditions: Sequence[str]) -> Table:
    pairs = Counter((condition, other) for shown in findings for condition in shown for other in shown)
    return {condition: {other: pairs[condition, other] for other in conditions} for condition in conditions}


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    columns = list(next(iter(table.values())))
    return ["", *columns], [[row, *(f"{counts[column]:,}" for column in columns)] for row, counts in table.items()]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
