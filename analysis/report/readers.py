"""The report's section on what readers took for real; every string escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from analysis.report.tables import NUMERIC, table
from analysis.run_folder import READERS, RunFolder

KINDS = ("real", "generated")


def readers_section(run: RunFolder) -> str:
    """The section, or nothing where no reader study was scored.

    Raises:
        ValueError: the file is damaged.
    """
    file = run.folder / READERS
    if not file.is_file():
        return ""
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{READERS}` must be JSON, but got: {error}. Score the study again.") from error
    words = [
        f"Readers told real films from generated ones of trial {scores['trial_id']}, half of each, without knowing which. A "
        "share of 0.5 is guessing: generated films that nobody tells apart. In brackets 95 % intervals, of each reader over "
        "films; p is that of guessing.",
        *_together(scores),
    ]
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in words)
    return f"<h2>Reader study</h2>{paragraphs}{_accuracy(scores)}{_findings(scores)}"


def _together(scores: Mapping[str, Any]) -> list[str]:
    """Mean and agreement, where there are several readers."""
    if scores["mean"] is None:
        return []
    mean, low, high = scores["mean"]
    agreement = scores["agreement"]
    return [
        f"Mean of {len(scores['readers'])} readers {mean:.2f} [{low:.2f}, {high:.2f}] over readers; agreement between them "
        f"(mean of Cohen's kappa over pairs) {agreement['kappa']:.2f} [{agreement['low']:.2f}, {agreement['high']:.2f}] over films."
    ]


def _accuracy(scores: Mapping[str, Any]) -> str:
    groups = (("reader", scores["readers"]), ("films with", scores["conditions"]))
    rows = [
        _row((f"{kind} {name}", str(share["num"]), in_words(share), f"{share['p_chance']:.2g}"))
        for kind, group in groups
        for name, share in group.items()
    ]
    rows += [_row((f"films with {name}", str(num), "too few films", "")) for name, num in scores["too_few"].items()]
    return table(["", f"films{NUMERIC}", f"right{NUMERIC}", f"p{NUMERIC}"], rows)


def _findings(scores: Mapping[str, Any]) -> str:
    rows = [
        _row((name, *(in_words(kinds[kind]) if kind in kinds else "no films" for kind in KINDS)))
        for name, kinds in scores["findings"].items()
    ]
    if not rows:
        return ""
    title = "<p><b>Share of films on which readers see the finding that the caption names</b></p>"
    return title + table(["finding", *(f"{kind} films{NUMERIC}" for kind in KINDS)], rows)


def in_words(share: Mapping[str, Any]) -> str:
    """A share with its interval."""
    return f"{share['count'] / share['num']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"


def _row(cells: Sequence[str]) -> str:
    first, *numbers = (escape(cell) for cell in cells)
    right = "".join(f'<td class="n">{cell}</td>' for cell in numbers)
    return f"<tr><td>{first}</td>{right}</tr>"
