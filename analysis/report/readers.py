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
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{READERS}` must be JSON, but got: {error}. Score the study again.") from error
    words = [
        f"Readers told real films from generated ones of trial {found['trial_id']}, half of each, without knowing which. A "
        "share of 0.5 is guessing: generated films that nobody tells apart. In brackets 95 % intervals, of each reader over "
        "films; p is that of guessing.",
        *_together(found),
    ]
    paragraphs = "".join(f"<p>{escape(one)}</p>" for one in words)
    return f"<h2>Reader study</h2>{paragraphs}{_accuracy(found)}{_findings(found)}"


def _together(found: Mapping[str, Any]) -> list[str]:
    """Mean and agreement, where there are several readers."""
    if found["mean"] is None:
        return []
    mean, low, high = found["mean"]
    one = found["agreement"]
    return [
        f"Mean of {len(found['readers'])} readers {mean:.2f} [{low:.2f}, {high:.2f}] over readers; agreement between them "
        f"(mean of Cohen's kappa over pairs) {one['kappa']:.2f} [{one['low']:.2f}, {one['high']:.2f}] over films."
    ]


def _accuracy(found: Mapping[str, Any]) -> str:
    groups = (("reader", found["readers"]), ("films with", found["conditions"]))
    rows = [
        _row((f"{kind} {name}", str(one["num"]), in_words(one), f"{one['p_chance']:.2g}"))
        for kind, group in groups
        for name, one in group.items()
    ]
    rows += [_row((f"films with {name}", str(num), "too few films", "")) for name, num in found["too_few"].items()]
    return table(["", f"films{NUMERIC}", f"right{NUMERIC}", f"p{NUMERIC}"], rows)


def _findings(found: Mapping[str, Any]) -> str:
    rows = [
        _row((name, *(in_words(kinds[kind]) if kind in kinds else "no films" for kind in KINDS)))
        for name, kinds in found["findings"].items()
    ]
    if not rows:
        return ""
    title = "<p><b>Share of films on which readers see the finding that the caption names</b></p>"
    return title + table(["finding", *(f"{kind} films{NUMERIC}" for kind in KINDS)], rows)


def in_words(one: Mapping[str, Any]) -> str:
    """A share with its interval."""
    return f"{one['count'] / one['num']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _row(cells: Sequence[str]) -> str:
    first, *numbers = (escape(cell) for cell in cells)
    right = "".join(f'<td class="n">{cell}</td>' for cell in numbers)
    return f"<tr><td>{first}</td>{right}</tr>"
