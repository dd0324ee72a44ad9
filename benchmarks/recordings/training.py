"""One training of a recording: the engine's own, scored at every rung with fewer and with all films."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.files import whole_file
from analysis.metrics import METRICS, LabelledFeatures, Metric, bootstrap_interval
from benchmarks.recordings.draws import Training
from benchmarks.recordings.settings import Recording
from sweep.scoring.plans import conditions_to_score
from sweep.scoring.scorer import AdapterScorer, EvaluationSpec
from trainables.base_models.models import load_base
from trainables.cuts import CUTS
from trainables.datasets.store import PreparedDataset
from trainables.epochs import DivergedError
from trainables.trial import EvaluationError, TrialSpec, fine_tune

SCORED: Final = ("fid", "kid", "vendi")
NUM_HALVES: Final = 100
GAUGE_TOKENS: Final = 77
CONFIDENCE: Final = 0.95
RECORDED: Final = (DivergedError, EvaluationError, FloatingPointError, ValueError)
"""How a training may fail; anything else is a fault of the recording, and ends it."""


@dataclass
class Clock:
    """Wall-clock seconds and this process's CPU seconds over the stretches in which it runs."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run for a block."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Let it stand still for a block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def read_cpu_s(self) -> float:
        """CPU seconds until now, while it runs."""
        return self.cpu_s + time.process_time() - self._since[1]

    def start(self) -> None:
        """Let it run from now on."""
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what has gone by since it was started."""
        wall_s, cpu_s = self._since
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s


class Gauge:
    """A fixed piece of work, by whose CPU time one sees how busy the machine is: it differs severalfold."""

    def __init__(self, unet: Any) -> None:
        """Prepare passes of 16 images through a U-Net."""
        generator, config = torch.Generator().manual_seed(0), unet.config
        shape = (16, config.in_channels, config.sample_size, config.sample_size)
        self._unet, self._latents = unet, torch.randn(shape, generator=generator)
        self._states = torch.randn((16, GAUGE_TOKENS, config.cross_attention_dim), generator=generator)

    @torch.inference_mode()
    def cpu_s(self) -> float:
        """CPU seconds of two passes."""
        clock = Clock()
        with clock.running():
            for timestep in (100, 900):
                self._unet(self._latents, timestep, self._states)
        return clock.cpu_s


class CurveScorer(AdapterScorer):
    """The engine's scorer, which also says what few of the films would have scored, and how sure each score is."""

    def __init__(self, spec: EvaluationSpec) -> None:
        """Load what scores, and the gauge."""
        super().__init__(spec)
        self.gauge = Gauge(self.base.unet)

    def curve_point(self, adapter: Path | None, low_images: int) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
        """Scores with the first films of each condition and with all of them, which are generated once.

        Args:
            adapter: its folder; None scores the un-adapted base.
            low_images: films of each condition in the first row.

        Returns:
            Two rows, and float32[n, dim] features of all films, those of the first row in the order of the plan.
        """
        places, rows = self.plan.places, []
        features, drawing = np.empty((len(places), self.extractor.dim), np.float32), Clock()
        known = np.zeros(len(places), bool)
        for count in (low_images, self.evaluation.images_per_condition):
            wanted = (places < count) & ~known
            with drawing.running():
                features[wanted] = self._draw(adapter, self.evaluation, wanted=wanted, shown=np.zeros_like(wanted))[0]
            known |= wanted
            rows.append(self._row(features[known], count, drawing))
        return rows, features

    def _row(self, features: NDArray[np.float32], count: int, drawing: Clock) -> dict[str, Any]:
        generated = LabelledFeatures(features, self.plan.only(self.plan.places < count).labels)
        reference, extractor = self._reference_of(count), self.extractor.name
        scoring = Clock()
        with scoring.running():
            values = {
                METRICS[name].reported_name(extractor): METRICS[name].fn(generated.features, reference.subset(None))
                for name in SCORED
            }
        errors = {
            f"{METRICS[name].reported_name(extractor)}_{kind}": error
            for name in SCORED
            for kind, error in standard_errors(METRICS[name], generated, reference, self.patients_of(count)).items()
        }
        return {
            "images_per_condition": count,
            "num_generated": len(generated),
            "num_reference": len(reference),
            **values,
            **errors,
            "evaluation_s": drawing.wall_s + scoring.wall_s,
            "evaluation_cpu_s": drawing.cpu_s + scoring.cpu_s,
        }

    def patients_of(self, per_condition: int) -> list[str]:
        """The patient of each held-out film of a rung."""
        rows = np.unique(self._plan_of(per_condition).rows)
        patients = self.held_out.patient_ids
        return [patients[row] for row in rows]


def standard_errors(
    metric: Metric, generated: LabelledFeatures, reference: LabelledFeatures, patients: list[str]
) -> dict[str, float]:
    """Standard errors of a metric by random halves, a patient's films together (the delete-half jackknife).

    Returns:
        `se` over other generated films and other held-out patients; where held-out films enter at all, `se_generated`
        over other generated films alone, which is what sets one training's score apart from another's.
    """

    def spread(function: Any, groups: list[str] | None) -> float:
        interval = bootstrap_interval(
            function,
            generated.features,
            reference.features,
            groups=groups,
            confidence=CONFIDENCE,
            num_resamples=NUM_HALVES,
            relative=metric.spread == "relative",
        )
        return (interval.high - interval.low) / (2 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2))

    kept = reference.subset(None)
    if not metric.sees_reference:
        return {"se": spread(lambda images, _: metric.fn(images, kept), None)}
    return {
        "se": spread(metric.fn, patients),
        "se_generated": spread(lambda images, _: metric.fn(images, kept), None),
    }


@dataclass
class CurveRecorder:
    """A trial's evaluator and its report: gathers the rows of one training."""

    scorer: CurveScorer
    recording: Recording
    training: Training
    rows: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    training_clock: Clock = field(default_factory=Clock)
    early_failures: dict[int, str] = field(default_factory=dict)
    _fresh: list[dict[str, Any]] = field(default_factory=list)

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        """Score an adapter of a rung, and pass over those of other epochs.

        Raises:
            EvaluationError: its films or their features are not finite.
        """
        epoch = round(share_done * self.recording.config.training.num_epochs)
        if epoch not in self.recording.rungs:
            return {}
        with self.training_clock.halted():
            try:
                self._score(adapter, epoch)
            except (ValueError, FloatingPointError) as error:
                self.early_failures[epoch] = str(error)
                raise EvaluationError(str(error)) from error
        return {}

    def _score(self, adapter: Path, epoch: int) -> None:
        rows, features = self.scorer.curve_point(adapter, self.recording.low_images)
        cut = adapter.parent.name.removeprefix(self.training.name).removeprefix("-")
        self._fresh += [{"epoch": epoch, "cut": cut or None, **row} for row in rows]
        name = f"{adapter.parent.name}-epoch{epoch:02d}.npy"
        with whole_file(self.recording.work / "features" / name) as stream:
            np.save(stream, features)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Take an epoch's figures, and join them with the scores of its rung."""
        kept = {name: metrics[name] for name in ("loss", "lr", "epoch_s", "peak_memory_gib", "trainable_parameters")}
        cpu_s = self.training_clock.read_cpu_s()
        with self.training_clock.halted():
            self.epochs.append(
                {
                    "epoch": metrics["epoch"] + 1,
                    **kept,
                    "training_cpu_s": cpu_s,
                    "gauge_cpu_s": self.scorer.gauge.cpu_s(),
                }
            )
        for row in self._fresh:
            costs = metrics if row["cut"] is None else metrics[CUTS][row["cut"]]
            self.rows.append(row | self._costs(costs["trainable_parameters"]))
        self._fresh.clear()

    def _costs(self, trainable_parameters: int) -> dict[str, Any]:
        return {
            "loss": self.epochs[-1]["loss"],
            "trainable_parameters": trainable_parameters,
            "training_s": sum(epoch["epoch_s"] for epoch in self.epochs),
            "training_cpu_s": self.training_clock.cpu_s,
            "peak_memory_gib": max(epoch["peak_memory_gib"] for epoch in self.epochs),
            "gauge_cpu_s": sum(epoch["gauge_cpu_s"] for epoch in self.epochs) / len(self.epochs),
        }


def scorer_of(recording: Recording) -> CurveScorer:
    """What scores all trainings of a recording: held-out films, prompts and noise are the same for each."""
    return CurveScorer(evaluation_of(recording))


def evaluation_of(recording: Recording) -> EvaluationSpec:
    """How the trainings of a recording are scored, with all films."""
    config, dataset = recording.config, prepared(recording)
    conditions = conditions_to_score(dataset, config.evaluation.split, config.data.conditions)
    return EvaluationSpec(
        base=config.base,
        dataset=dataset.folder,
        conditions=conditions,
        cache_folder=recording.work / "cache",
        seed=config.seed,
        config=config.evaluation,
    )


def prepared(recording: Recording) -> PreparedDataset:
    """The films."""
    assert recording.config.data.path is not None
    return PreparedDataset.open(recording.config.data.path)


def base_hash(recording: Recording) -> str:
    """Hash of the base's weights."""
    return load_base(recording.config.base, ("unet",)).base.weights_hash


def spec_of(recording: Recording, training: Training) -> TrialSpec:
    """The trial that the engine trains."""
    return TrialSpec(
        base=recording.config.base,
        dataset=prepared(recording).folder,
        folder=recording.work / "trials" / training.name,
        cache_folder=recording.work / "cache",
        seed=training.seed,
        training=recording.config.training,
        **training.choice,
    )


def record(recording: Recording, training: Training, scorer: CurveScorer, still_wanted: Any) -> dict[str, Any]:
    """Make one training and keep what it gave, or why it failed.

    Args:
        still_wanted: called after each epoch; may raise to end the work.

    Returns:
        What is kept.
    """
    started, recorder = time.monotonic(), CurveRecorder(scorer, recording, training)
    spec, reason = spec_of(recording, training), None
    _remove_folders(spec)  # of a process that was killed

    def report(metrics: dict[str, Any]) -> None:
        recorder.report(metrics)
        still_wanted()

    recorder.training_clock.start()
    try:
        fine_tune(spec, recorder, report)
    except RECORDED as error:
        reason = f"{type(error).__name__}: {error}"
    part = {
        "config": training.config,
        "strategy": training.strategy,
        "number": training.number,
        "seed": training.seed,
        "choice": training.choice,
        "params": training.params,
        "failure": reason,
        "early_failures": recorder.early_failures,
        "rows": recorder.rows,
        "epochs": recorder.epochs,
        "seconds": time.monotonic() - started,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _remove_folders(spec)
    return part


def _remove_folders(spec: TrialSpec) -> None:
    """Of the training and its cuts."""
    for folder in spec.folder.parent.glob(f"{spec.folder.name}*"):
        shutil.rmtree(folder)


def keep(part: Mapping[str, Any], provenance: Mapping[str, Any], file: Path) -> None:
    """Write a part, whole or not at all."""
    with whole_file(file) as stream:
        stream.write((json.dumps({**part, "provenance": provenance}, allow_nan=False, indent=1) + "\n").encode())
