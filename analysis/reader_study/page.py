"""The page that readers see: one file with its films in it, which knows nothing of what they are."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from PIL import Image

from analysis.reader_study.films import Pairs, Shown


def study_page(study: str, shown: Sequence[Shown], films: Pairs, conditions: Sequence[str]) -> str:
    """The page as HTML.

    Films are encoded alike, whatever they are, and only their random names are with them.

    Args:
        study: its name, which answers carry.
        shown: the films in their order.
        films: where they are taken from.
        conditions: the findings that are asked for.
    """
    page = Template(files("analysis.reader_study").joinpath("page.html").read_text(encoding="utf-8"))
    content = {
        "study": study,
        "conditions": list(conditions),
        "films": [{"id": film.id, "source": _encoded(films, film)} for film in shown],
    }
    return page.substitute(title=escape(f"Reader study {study}"), content=json.dumps(content).replace("<", "\\u003c"))


def _encoded(films: Pairs, shown: Shown) -> str:
    memory = io.BytesIO()
    Image.fromarray(films.film(shown)).save(memory, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"
