"""An evaluator that has every process of a trial write down what it trains on; sent to Ray's processes by value."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file

from trainables.batches import Share
from trainables.feeding import BatchFeeder, HostBatch
from trainables.strategies.base import trained_parameters
from trainables.training import FineTuning
from trainables.trial import TrialSpec, fine_tune

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules

WAITS, SLOW = "waits.json", "slow.json"
"""Appear as an evaluation begins to wait, and as a training becomes slow."""
DIES = "dies"
"""Once it is there, the process that evaluates next dies of it; no further one does."""


@dataclass(frozen=True)
class RecordingEvaluator:
    """Wherever it arrives, every process notes the images that it trains on and the parameters that it ends with.

    Args:
        folder: where to.
        waits: with other workers beside it, it is not done before it is ended.
        slow_after: steps after which each one takes a second more.
    """

    folder: Path
    waits: bool = False
    slow_after: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.folder, self.waits, self.slow_after)

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        if self.waits and torch.distributed.get_world_size() > 1:
            _note(self.folder, WAITS, {"process": os.getpid()})
            time.sleep(300)
        if (self.folder / DIES).exists():
            (self.folder / DIES).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        _note(self.folder, f"evaluation-{adapter.parent.name}-{time.time_ns()}.json", {"process": os.getpid()})
        tensors = load_file(adapter / "adapter.safetensors").values()
        return {"score": 1.0, "size": float(sum(tensor.numel() for tensor in tensors))}


def _arrive(folder: Path, waits: bool, slow_after: int | None) -> RecordingEvaluator:
    _record(folder, slow_after)
    return RecordingEvaluator(folder, waits, slow_after)


def second(scored: Mapping[Path, Mapping[str, Any]], left: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Choose rank 2 alone, where there is one."""
    return "rank2" if "rank2" in left else None


def _note(folder: Path, name: str, values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


def _record(folder: Path, slow_after: int | None) -> None:
    seen: list[list[int]] = []
    batches = getattr(BatchFeeder.batches, "original", BatchFeeder.batches)
    run = getattr(FineTuning.run, "original", FineTuning.run)

    def recorded_batches(self: BatchFeeder, *arguments: Any) -> Iterator[tuple[Share, HostBatch]]:
        for share, host in batches(self, *arguments):
            if not seen:
                _note(folder, f"began-{time.time_ns()}.json", share.indices.tolist())
            seen.append(share.indices.tolist())
            if slow_after is not None and len(seen) > slow_after:
                _note(folder, SLOW, {"process": os.getpid()})
                time.sleep(1)
            yield share, host

    def recorded_run(self: FineTuning, *arguments: Any) -> None:
        run(self, *arguments)
        rank = self.accelerator.process_index
        trained = {name: parameter.detach().clone() for name, parameter in trained_parameters(self.models)}
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        _note(folder, f"worker-{rank}.json", {"seen": seen, "world": world, "process": os.getpid()})
        torch.save(trained, folder / f"worker-{rank}.pt")

    recorded_batches.original, recorded_run.original = batches, run  # type: ignore[attr-defined]
    BatchFeeder.batches, FineTuning.run = recorded_batches, recorded_run  # type: ignore[method-assign]


def recorded_here(spec: TrialSpec, folder: Path, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Run a trial with one worker in this very process, recorded."""
    spec.folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchFeeder, "batches", BatchFeeder.batches)  # so that both are what they were afterwards
        patch.setattr(FineTuning, "run", FineTuning.run)
        fine_tune(spec, _arrive(folder, waits=False, slow_after=None), report)
