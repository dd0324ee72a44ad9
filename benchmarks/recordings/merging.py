"""The parts of a recording as one Parquet file, with a card that says what it is."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as parquet

from analysis.files import whole_file
from benchmarks.recordings import CARD, MARKDOWN, TABLE, Row, checked_curves, read_table, training_name, trainings_in
from benchmarks.recordings.agreement import agreements, cost_shares, seed_spreads
from benchmarks.recordings.settings import kept_baseline, kept_settings, require_same

MOST_BYTES: Final = 3 * 2**20
HALVES: Final = "by 100 random halves without replacement, a patient's films together (delete-half jackknife)"
COLUMNS: Final = {
    "config": ("name of the configuration, shared by its seeds", "", ""),
    "strategy": ("strategy, or strategies joined by +", "", ""),
    "number": ("of the configuration among its strategy's, from 0", "", ""),
    "seed": ("of the training: initial values, batches, noise", "", ""),
    "cut": ("smaller strategy cut out of the training, scored at its end only; none: the training itself", "", ""),
    "choice": ("what the search space suggested, as JSON", "", ""),
    "params": ("the same by Optuna's names, as JSON", "", ""),
    "failure": ("why the training failed; none where it did not", "", ""),
    "losses": ("mean training loss of each epoch", "", "min"),
    "epoch": (
        "epochs behind the row; none in the one row of a training that failed before its first rung",
        "epochs",
        "",
    ),
    "images_per_condition": (
        "films generated for a condition at most; the fewer are the first of the more",
        "films",
        "",
    ),
    "num_generated": ("films generated", "films", ""),
    "num_reference": ("held-out films compared with, each once", "films", ""),
    "fid_mini": (
        "Fréchet distance of the mini extractor's features; compare at equal numbers of films only",
        "",
        "min",
    ),
    "fid_mini_se": (f"its standard error over other generated films and held-out patients, {HALVES}", "", ""),
    "fid_mini_se_generated": ("its standard error over other generated films, held-out films kept; likewise", "", ""),
    "kid_mini": ("kernel distance, unbiased", "", "min"),
    "kid_mini_se": ("as of fid_mini", "", ""),
    "kid_mini_se_generated": ("as of fid_mini", "", ""),
    "vendi_mini": ("Vendi score, cosine kernel; grows with the number of films", "films", "max"),
    "vendi_mini_se": ("its standard error over other generated films, by 100 halves, scaled to all", "films", ""),
    "loss": ("mean training loss of the rung's epoch", "", "min"),
    "trainable_parameters": ("parameters that train at the rung", "", "min"),
    "training_s": ("wall clock of all epochs up to the rung; the machine was shared", "s", "min"),
    "training_cpu_s": (
        "CPU time of the one thread up to the rung, with set-up and export, without evaluations",
        "s",
        "min",
    ),
    "evaluation_s": ("wall clock of generating and scoring the row's films, without the standard errors", "s", "min"),
    "evaluation_cpu_s": ("CPU time of the same", "s", "min"),
    "peak_memory_gib": (
        "largest resident memory of the process in training up to the rung; the process is reused",
        "GiB",
        "min",
    ),
    "gauge_cpu_s": (
        "CPU time of a fixed piece of work (two passes of 16 images through the base's U-Net), mean over the epochs up to "
        "the rung: costs over it depend less on how busy the machine was",
        "s",
        "",
    ),
    "early_failures": ("by epoch why a rung before the end could not be scored, as JSON", "", ""),
    "provenance": ("code, packages, machine, data and base that made the row, as JSON", "", ""),
    "ended": ("when the training ended", "UTC", ""),
}
"""By column: meaning, unit, and which way is better."""
Part = Mapping[str, Any]


def read_parts(work: Path) -> list[Part]:
    """The parts that are there."""
    return [json.loads(file.read_text()) for file in (work / "parts").glob("*.json")]


def rows_of(part: Part) -> Iterator[dict[str, Any]]:
    """A part's rows in the table: its own first, then its cuts'; one without figures where it has none."""
    same = {name: part[name] for name in ("config", "strategy", "number", "seed", "failure", "ended")}
    same |= {name: json.dumps(part[name]) for name in ("choice", "params", "early_failures")}
    same |= {"losses": [epoch["loss"] for epoch in part["epochs"]]}
    same |= {"provenance": json.dumps(part["provenance"], sort_keys=True)}
    rows = sorted(part["rows"], key=lambda row: row["cut"] is not None)
    for row in rows or [{}]:
        yield {name: {**same, **row}.get(name) for name in COLUMNS}


def all_rows(work: Path, to: Path) -> list[Row]:
    """The rows of the table that is there, and those of the parts that it does not hold, by strategy, number and seed.

    Raises:
        ValueError: there are none, or the table is not its card's.
    """
    kept = trainings_in(to)
    earlier = read_table(to)[0] if kept else []
    rows = [*earlier, *(row for part in read_parts(work) for row in rows_of(part) if training_name(row) not in kept)]
    if not rows:
        raise ValueError(f"`--work` must hold parts, but got none in {str(work / 'parts')!r}. Record some first.")
    return sorted(rows, key=lambda row: (row["strategy"], row["number"], row["seed"]))


def shared_settings(work: Path, to: Path) -> Mapping[str, Any]:
    """The settings of the parts and of the table that is there.

    Raises:
        ValueError: they differ.
    """
    by_source = kept_settings(work, to)
    settings = next(iter(by_source.values()))
    for source, other in by_source.items():
        require_same(other, settings, source)
    return settings


def merge(work: Path, to: Path) -> dict[str, Any]:
    """Write the table and its card; what the table holds stays, and the parts that it does not hold are added.

    Args:
        work: folder of the parts.
        to: folder of the table.

    Returns:
        The card.

    Raises:
        ValueError: there are no parts, one breaks a rule of what a curve is or is of other settings than the table, or
            they are more than the table may hold.
    """
    rows = all_rows(work, to)
    content = _as_parquet(rows)
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"`{TABLE}` must have at most {MOST_BYTES} bytes, but got {len(content)}. Record fewer trainings."
        )
    card = _card(rows, shared_settings(work, to)) | {"baseline": kept_baseline(work, to)}
    card = {"name": to.name, "merged": datetime.now(UTC).isoformat(timespec="seconds"), **card}
    card |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    for name, data in {TABLE: content, CARD: _as_json(card), MARKDOWN: markdown(card).encode()}.items():
        with whole_file(to / name) as stream:
            stream.write(data)
    return card


def _as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), stream, compression="zstd", compression_level=19)
    return stream.getvalue()


def _as_json(card: Mapping[str, Any]) -> bytes:
    return (json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _card(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    rungs, counts = settings["rungs"], [settings["low_images"], settings["evaluation"]["images_per_condition"]]
    curves = [curve for curve in checked_curves(rows, rungs, counts) if curve.cut is None]
    trainings = {training_name(row): row for row in rows}
    early = {name: json.loads(row["early_failures"]) for name, row in trainings.items()}
    return {
        "rungs": rungs,
        "image_counts": counts,
        "num_trainings": len(trainings),
        "num_rows": len(rows),
        "num_configs": len({row["config"] for row in rows}),
        "trainings_by_strategy": dict(Counter(row["strategy"] for row in trainings.values())),
        "failures": {name: row["failure"] for name, row in trainings.items() if row["failure"]},
        "early_failures": {name: reasons for name, reasons in early.items() if reasons},
        "settings": settings,
        "provenance": _provenance([json.loads(row["provenance"]) for row in trainings.values()]),
        "columns": {
            name: {"meaning": what, "unit": unit, "better": better} for name, (what, unit, better) in COLUMNS.items()
        },
        "agreements": [asdict(figure) for figure in agreements(curves, rungs, counts)],
        "cost_shares": [asdict(figure) for figure in cost_shares(curves, rungs, counts)],
        "seed_spreads": [asdict(figure) for figure in seed_spreads(curves, rungs[-1], counts[-1])],
    }


def _provenance(provenances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where the trainings come from: by entry the values that occur, with the number of trainings of each."""
    once = ("git_commit", "python", "platform", "cpu", "data_fingerprint")
    counts = {name: dict(Counter(str(provenance[name]) for provenance in provenances)) for name in once}
    packages = Counter(
        f"{name} {version}" for provenance in provenances for name, version in provenance["packages"].items()
    )
    return {**counts, "packages": dict(sorted(packages.items())), "base": provenances[-1]["base"]}


def markdown(card: Mapping[str, Any]) -> str:
    """The card as one reads it."""
    facts = [
        f"{card['num_trainings']} trainings of {card['num_configs']} configurations, {len(card['failures'])} failed; "
        f"scored after {', '.join(map(str, card['rungs']))} epochs with {' and '.join(map(str, card['image_counts']))} "
        f"films per condition. {card['num_rows']} rows, {card['bytes']:,} bytes.",
        "",
        *(f"- {name}: {_listed(values)}" for name, values in card["provenance"].items()),
        f"- settings: `{json.dumps(card['settings'])}`",
    ]
    tables = [
        _table("Trainings", ("strategy", "trainings"), list(card["trainings_by_strategy"].items())),
        _table("Failures", ("training", "reason"), list(card["failures"].items())),
        _table(
            "Columns", ("column", "meaning", "unit", "better"), [(k, *v.values()) for k, v in card["columns"].items()]
        ),
        *(
            _table(title, list(entries[0]), [list(entry.values()) for entry in entries])
            for title, entries in {
                "The un-adapted base": card["baseline"],
                "Rank correlation with the end": card["agreements"],
                "What a rung costs": card["cost_shares"],
                "Spread of seeds at the end": card["seed_spreads"],
            }.items()
            if entries
        ),
    ]
    return "\n".join([f"# Recorded learning curves: {card['name']}", "", *facts, *tables]) + "\n"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"\n## {title}\n", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in values.items())
