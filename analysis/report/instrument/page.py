"""The instrument as a part of the page: its markup, what it knows, its pictures and its scripts, all inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from analysis.report.instrument.content import content, sheets
from analysis.report.instrument.library import vega
from analysis.report.instrument.pool import Pool
from analysis.report.pictures import MAX_MAPS_BYTES, picture, sheet_picture
from analysis.run_folder import word_maps_beside

SCRIPTS: Final = (
    "state.js",
    "parts.js",
    "plots.js",
    "parallel.js",
    "scatter.js",
    "course.js",
    "controls.js",
    "table.js",
    "words.js",
    "films.js",
    "chosen.js",
    "main.js",
)
"""The page's scripts in their order; each may use what those before it define."""


def markup() -> str:
    """The instrument's place on the page; without JavaScript it stays hidden, and what the page says without it is shown."""
    return f"<style>{_text('instrument.css')}</style>\n{_text('instrument.html')}"


def scripts(pool: Pool, curves: Sequence[str], pictures: Mapping[str, Path]) -> str:
    """What fills it, for the end of the page; where the library cannot be had, a sentence that says so.

    A sweep of days must not end without a page for want of what makes it convenient.

    Args:
        pool: the runs.
        curves: columns of the reports to draw over the epochs.
        pictures: sheets of films by key that stand nowhere else on the page.
    """
    try:
        library = vega()
    except RuntimeError as error:
        return f'<p class="quiet">The page is without its instrument: {escape(str(error))}</p>'
    maps = {name: path for name, sheet in sheets(pool).items() if (path := word_maps_beside(sheet)).is_file()}
    payload = json.dumps(content(pool, curves, maps), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    drawn = "\n".join(
        [
            *(_held("sheet", name, sheet_picture(path)) for name, path in pictures.items()),
            *(_held("words", name, picture(path, MAX_MAPS_BYTES)) for name, path in maps.items()),
        ]
    )
    code = "\n".join(_text(name) for name in SCRIPTS)
    return (
        f'<script type="application/json" id="content">{payload}</script>\n{drawn}\n'
        f'<script>{library}</script>\n<script>(() => {{\n"use strict";\n{code}\n}})();</script>'
    )


def _held(kind: str, name: str, address: str) -> str:
    return f'<script type="text/plain" data-{kind}="{escape(name)}">{address}</script>'


def _text(name: str) -> str:
    return files("analysis.report.instrument").joinpath(name).read_text(encoding="utf-8")
