"""Run as a program of its own, one process a worker: trains SeLoRA for six steps, at once and
with a break, and saves what the worker ends with.

Its arguments are a prepared data set and a folder; which worker it is, it learns from the environment as torchrun sets it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from trainables.accelerators import new_accelerator
from trainables.base_models.models import load_base
from trainables.batches import BatchPlan
from trainables.checkpoints import Checkpoint
from trainables.datasets.store import PreparedDataset
from trainables.feeding import BatchFeeder
from trainables.resuming import restore_weights
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters
from trainables.suspending import SuspendedError, never
from trainables.training import FineTuning


def small_memory(unet: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """Run out of it as a device would that has room for two images."""
    if len(arguments[0]) > 2:
        raise torch.OutOfMemoryError("no room")


def tuning_of(dataset: Path, accelerator: Accelerator, going_on_from: Checkpoint | None = None) -> FineTuning:
    """A training of six steps in two epochs."""
    models, strategy = load_base("mini").fresh(), make_strategy("selora", {"interval": 2, "threshold": 1.25})
    torch.manual_seed(0)
    strategy.attach(models)
    if going_on_from is not None:
        restore_weights(models, strategy, going_on_from)
    config = TrainingConfig(num_epochs=2, warmup_fraction=0.0, micro_batch="auto", ema_decay=0.5)
    feeder = BatchFeeder(
        models=models,
        data=PreparedDataset.open(dataset).split("train"),
        data_key="phantom-train",
        trained=strategy.trains,
        cache_folder=None,
        caption_dropout=0.3,
    )
    plan = BatchPlan(num_images=24, batch_size=8, num_workers=accelerator.num_processes, seed=3)
    tuning = FineTuning(models, strategy, feeder=feeder, plan=plan, lr=1e-3, config=config, accelerator=accelerator)
    if accelerator.num_processes > 1 and accelerator.process_index == 1:
        models.unet.register_forward_pre_hook(small_memory)
    if going_on_from is not None:
        tuning.resume(going_on_from)
    return tuning


def suspended(dataset: Path, accelerator: Accelerator) -> dict[str, Any]:
    """The same training, which the first worker is asked to suspend after its first step, and which then goes on."""
    first, losses = tuning_of(dataset, accelerator), list[float]()
    is_asked = (lambda: first.step >= 1) if accelerator.is_main_process else never
    with suppress(SuspendedError):
        first.run(lambda report: losses.append(report.loss), is_asked)
    later = tuning_of(dataset, accelerator, first.checkpoint())
    later.run(lambda report: losses.append(report.loss))
    return {
        "suspended_at": first.step,
        "losses_of_suspended": losses,
        "parameters_of_suspended": {name: value.detach() for name, value in trained_parameters(later.models)},
    }


def main(dataset: Path, to: Path) -> None:
    """Train and save."""
    accelerator = new_accelerator("no")
    tuning, losses = tuning_of(dataset, accelerator), list[float]()
    tuning.run(lambda report: losses.append(report.loss))
    facts: dict[str, Any] = {
        "parameters": {name: parameter.detach() for name, parameter in trained_parameters(tuning.models)},
        "averages": tuning._average.values if tuning._average else [],
        "losses": losses,
        "micro_batch": tuning._micro_batch.size,
        "history": tuning.rank_history,
        "is_wrapped": isinstance(tuning._loss, DistributedDataParallel),
        **suspended(dataset, accelerator),
    }
    torch.save(facts, to / f"{accelerator.num_processes}-{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
