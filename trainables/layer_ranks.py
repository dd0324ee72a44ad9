"""The ranks of a trial's low-rank layers: as a file beside its adapter, and as metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.datasets.files import synced_file

RANKS = "ranks.json"


def write_ranks(history: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write how ranks changed, whole or not at all: the layers' paths once, then a row of ranks for each change.

    Args:
        history: `step` and `ranks` by layer, the same layers in each.
        file: where to write, as `{"layers": [path], "steps": [step], "ranks": [[rank]]}`.
    """
    layers = list(history[-1]["ranks"])
    document = {
        "layers": layers,
        "steps": [entry["step"] for entry in history],
        "ranks": [[entry["ranks"][path] for path in layers] for entry in history],
    }
    partial = file.with_name(f".{file.name}.partial")
    with synced_file(partial) as content:
        content.write(json.dumps(document, separators=(",", ":")).encode())
    partial.replace(file)


def rank_metrics(ranks: Mapping[str, int]) -> dict[str, float]:
    """Mean and largest rank, each larger for larger adapters; nothing where there are no ranks."""
    if not ranks:
        return {}
    return {"mean_rank": sum(ranks.values()) / len(ranks), "max_rank": float(max(ranks.values()))}
