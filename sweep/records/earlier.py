"""Reading the directory of an earlier sweep for what a new search can learn from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analysis.front.pareto import Front
from analysis.front.statuses import COMPLETED
from analysis.run_folder import CONFIG, EVENTS, PROVENANCE
from analysis.studies.rung_agreement import STANDARD_ERROR
from sweep.config import ConfigError, SweepConfig
from sweep.loading import load_run_config
from sweep.notation import flat
from sweep.records.events import Cut, Ended, Event, Reported, Started, read_events
from sweep.records.tables import Tables
from sweep.trials.earlier import EarlierSweep

COMPARED: Final = ("data", "base", "resolution_px", "objectives", "evaluation.", "training.", "search.budget.")
"""What of two configurations must be the same for their results to be comparable, by the beginnings of keys."""
IRRELEVANT: Final = (
    "evaluation.batch_size",
    "evaluation.early_images_share",
    "evaluation.early_steps_share",
    "training.micro_batch",
    "training.checkpoint_every_s",
    "training.evaluate_every_epochs",
    "training.cache_latents",
)
"""What of these changes no result."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a new sweep trains and evaluates, as far as it is known.

    Attributes:
        data: the data set's fingerprint; None: not drawn yet, and compared by how they are made.
        weights: hash of the base model's; None: not looked at, and compared by the base's name.
    """

    data: str | None = None
    weights: str | None = None


def read_earlier(folder: Path, config: SweepConfig, identity: Identity) -> EarlierSweep:
    """What the sweep in a folder knows that one of this configuration can use.

    Args:
        folder: run directory, of a sweep that has ended or not.
        config: of the new sweep, with absolute folders.
        identity: of the new sweep's data and base model.

    Raises:
        ConfigError: it is no run directory, it is damaged, another version wrote it, or none of its trials was completed.
    """
    try:
        theirs, events = load_run_config(_holding(folder)), read_events(folder / EVENTS)
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        differs = _differences(config, theirs, identity, provenance)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"`--prior` must be a readable run directory, but got {str(folder)!r}: {error}") from error
    trials = list(_completed(events, config))
    if not trials:
        raise ConfigError(
            f"`--prior` must have completed a trial, but got {str(folder)!r}, which has completed 0 of "
            f"{theirs.search.num_trials}. Leave it out."
        )
    return EarlierSweep(
        folder=str(folder),
        differs=differs,
        trials=list(_of_front(trials, events, theirs)) if differs else [trial for _, trial in trials],
    )


def read_all(folders: Sequence[Path], config: SweepConfig, identity: Identity) -> tuple[EarlierSweep, ...]:
    """What the sweeps in several folders know; see `read_earlier`.

    Args:
        folders: run directories.
        config: of the new sweep, with absolute folders.
        identity: of the new sweep's data and base model.

    Raises:
        ConfigError: one of them cannot be used.
    """
    return tuple(read_earlier(folder, config, identity) for folder in folders)


def _holding(folder: Path) -> Path:
    for name in (CONFIG, EVENTS, PROVENANCE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"it has no {name}. Give the directory that `python -m sweep.run` printed.")
    return folder


def _differences(
    config: SweepConfig, theirs: SweepConfig, identity: Identity, provenance: Mapping[str, Any]
) -> tuple[str, ...]:
    """In what two sweeps differ of all that their results depend on."""
    ours, others = (dict(flat(settings.model_dump(mode="json"))) for settings in (config, theirs))
    keys = [key for key in ours if key.startswith(COMPARED) and key not in IRRELEVANT]
    differing = [key for key in keys if ours[key] != others.get(key)]
    if identity.data is not None:  # it says more than the path
        differing = [key for key in differing if not key.startswith("data.") or key == "data.conditions"]
        differing += ["data"] * (identity.data != provenance["data_fingerprint"])
    if identity.weights is not None:
        differing = [key for key in differing if key != "base"]
        differing += ["base"] * (identity.weights != provenance["base"]["weights_hash"])
    return tuple(sorted(differing))


def _completed(events: Sequence[Event], config: SweepConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """The trials that were completed, by their ids, with what they reported of the new sweep's objectives."""
    names = [objective.name for objective in config.reported_objectives()]
    wanted = {*names, *(f"{name}{STANDARD_ERROR}" for name in names)}
    started: dict[str, Started] = {}
    reports: dict[str, Mapping[str, Any]] = {}
    for event in events:
        match event:
            case Started():
                started[event.trial_id] = event
            case Reported():
                reports[event.trial_id] = event.metrics
            case Ended(kind=kind) if kind == COMPLETED and event.trial_id in started:
                begun, metrics = started[event.trial_id], reports[event.trial_id]
                yield (
                    event.trial_id,
                    {
                        "choice": begun.choice,
                        "params": begun.params,
                        "metrics": {name: metrics[name] for name in metrics if name in wanted},
                    },
                )


def _of_front(
    trials: Sequence[tuple[str, dict[str, Any]]], events: Sequence[Event], theirs: SweepConfig
) -> Iterator[dict[str, Any]]:
    """Those on the earlier sweep's own front, each once: its knee, the best by each objective, then the others."""
    tables = Tables(theirs.reported_objectives())
    for event in events:
        event.tell(tables)
    whole = {event.cut_id: event.trial_id for event in events if isinstance(event, Cut)}
    by_id = dict(trials)
    for name in dict.fromkeys(whole.get(name, name) for name in _in_order(tables.front())):
        yield {**by_id[name], "metrics": {}}


def _in_order(front: Front) -> Iterator[str]:
    if front.knee is not None:
        yield front.knee.trial_id
    for objective in front.objectives:
        values = {point.trial_id: point.values[objective.name] for point in front.points}
        yield from sorted(values, key=lambda name: values[name], reverse=objective.direction == "max")[:1]
    yield from (point.trial_id for point in front.points)
