"""Fine-tuning one base model by one strategy: the loop of a trial, free of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.averages import MovingAverage
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan, Share, filled, micro_batches
from trainables.budgets import NO_BUDGET, SECONDS, Budget, Course
from trainables.checkpoints import Checkpoint, under_prefix
from trainables.compiling import compile_blocks, expected_to_compile
from trainables.draws import EpochDraws, seeded_dropout
from trainables.epochs import EpochReport, EpochUnderWay, finite_mean
from trainables.feeding import BatchFeeder, HostBatch
from trainables.growth import adopt, adopt_average
from trainables.half import halve_frozen
from trainables.loss import DenoisingLoss
from trainables.lr_schedule import lr_factor
from trainables.memory import MemoryWatch, expected_to_fit, give_back_memory, hold_moments
from trainables.micro_batches import NotEnoughMemoryError, micro_batch_for
from trainables.resuming import optimizer_tensors, restore_optimizer, restore_scaler, weights_and_strategy
from trainables.settings import TrainingConfig
from trainables.strategies.base import Change, Strategy, TrainingStep, trained_parameters
from trainables.suspending import Agreement, SuspendedError, never

CHECK_EVERY_STEPS = 16


class FineTuning:
    """One trial's training: models with an attached strategy, an optimiser and the data.

    Args:
        models: attached by `strategy` already and on the accelerator's device; where training is in half precision, so are
            their frozen weights afterwards.
        feeder: gives the batches.
        plan: which images each worker sees.
        lr: peak learning rate.
        budget: how far it goes; without one `config.num_epochs` passes over the images.
        compiler: torch's backend that compiles the U-Net's blocks; short micro-batches are then filled up to the size of the
            others. None: nothing is compiled.
    """

    def __init__(
        self,
        models: DiffusionModels,
        strategy: Strategy,
        *,
        feeder: BatchFeeder,
        plan: BatchPlan,
        lr: float,
        config: TrainingConfig,
        accelerator: Accelerator,
        budget: Budget = NO_BUDGET,
        compiler: str | None = None,
    ) -> None:
        self.models, self.strategy, self.feeder, self.plan = models, strategy, feeder, plan
        self.config, self.accelerator, self.budget, self.compiler = config, accelerator, budget, compiler
        self.step = self.next_epoch = 0
        self.spent_s = 0.0
        """Seconds that training has taken, without evaluations."""
        self._began_s = self._failed_s = 0.0
        """When this epoch began, had it not been suspended, and its seconds of attempts at steps that ran out of memory."""
        self._under_way, self._agreement = EpochUnderWay(epoch=0, first_step=0), Agreement(never, accelerator)
        self.rank_history: list[dict[str, Any]] = [{"step": 0, "ranks": strategy.ranks(models)}]
        """The low-rank layers' ranks at the start and whenever some have changed, by the number of steps taken."""
        halve_frozen(models, accelerator.mixed_precision)
        self._parameters = [parameter for _, parameter in trained_parameters(models)]
        # Fused, it would take fp16's skipped steps as calls that do nothing, and `step_was_skipped` never be true.
        optimizer = torch.optim.AdamW(
            strategy.param_groups(models, lr), lr=lr, weight_decay=config.weight_decay, fused=accelerator.scaler is None
        )
        self._lr_schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._lr_factor(step))
        loss = DenoisingLoss(
            models,
            min_snr_gamma=config.min_snr_gamma,
            reconstruction_weight=strategy.reconstruction_weight,
            penalty=lambda: strategy.penalty(models),
        )
        self._loss = accelerator.prepare(loss)
        self._optimizer = accelerator.prepare(optimizer)
        self._average = None if config.ema_decay is None else MovingAverage(self._parameters, config.ema_decay)
        self._micro_batch = micro_batch_for(config.micro_batch, self._largest_share(), self._shape())

    @property
    def course(self) -> Course:
        """Where its epochs end."""
        return Course(budget=self.budget, num_epochs=self.config.num_epochs, plan=self.plan)

    def _lr_factor(self, step: int) -> float:
        """The share of its peak that the learning rate has: by steps, or where the clock decides by milliseconds.

        Those of the step under way do not count, as workers have not agreed on them.
        """
        num_places, place = self.course.num_steps, step
        if num_places is None:
            num_places, place = round(1000 * (self.budget.seconds or 0)), round(1000 * self.spent_s)
        warmup = int(self.config.warmup_fraction * num_places)
        return lr_factor(
            min(place, num_places), num_steps=num_places, warmup_steps=warmup, shape=self.config.lr_schedule
        )

    def _num_steps(self) -> int:
        """Of the whole training; where the clock decides, as many as it will be at the mean pace so far."""
        known = self.course.num_steps
        return known or max(self.step + 1, round(self.step / (self.course.share_done(self.step, self.spent_s) or 1.0)))

    def _largest_share(self) -> int:
        """The most images that a worker computes in a step."""
        return -(-min(self.plan.batch_size, self.plan.num_images) // self.plan.num_workers)

    def _shape(self) -> Hashable | None:
        """What a step's memory depends on beside the number of images; workers must find out together, and anew."""
        if self.accelerator.num_processes > 1:
            return None
        numbers = (self.strategy.num_parameters(self.models), self.config.ema_decay is None, self.feeder.latent_shape)
        return self.models.base, self.strategy.name, self.accelerator.mixed_precision, numbers

    def run(self, on_epoch_end: Callable[[EpochReport], None], is_asked: Callable[[], bool] = never) -> None:
        """Train all epochs that are left.

        Args:
            on_epoch_end: may ask for `evaluated_weights`.
            is_asked: whether the training is to be suspended; asked once a step, and heeded where the first worker is.

        Raises:
            DivergedError: the loss became NaN or infinite.
            NotEnoughMemoryError: a step does not fit into memory.
            CompilationError: blocks are to be compiled, and cannot be.
            SuspendedError: it was suspended after a step.
        """
        with expected_to_fit("optimiser"):
            hold_moments(self._optimizer.optimizer)
        if self.compiler is not None:
            compile_blocks(self.models.unet, backend=self.compiler)
        self._settle_micro_batch()
        self._agreement = Agreement(is_asked, self.accelerator)
        for epoch in range(self.next_epoch, self.config.num_epochs):
            on_epoch_end(self._epoch(epoch))

    def checkpoint(self, *, is_reported: bool = True) -> Checkpoint:
        """All that training goes on from, at the end of an epoch or within one; the same in every worker.

        Args:
            is_reported: of an epoch that is over, whether it is left behind; else it is gone on with, to be reported.
        """
        parameters = dict(trained_parameters(self.models))
        parts = weights_and_strategy(self.models, self.strategy)
        parts["optimizer"] = optimizer_tensors(self._optimizer.optimizer, parameters)
        if self._average is not None:
            parts["average"] = dict(zip(parameters, self._average.values, strict=True))
        is_under_way = self._under_way.epoch == self.next_epoch or not is_reported
        within_epoch = bool(self._under_way.losses) and is_under_way
        if within_epoch:
            parts["epoch"] = {"losses": torch.stack(self._under_way.losses)}
        scaler = self.accelerator.scaler
        facts = {
            "next_epoch": self._under_way.epoch if within_epoch else self.next_epoch,
            "under_way": self._under_way.facts() if within_epoch else None,
            "step": self.step,
            "spent_s": self.spent_s if self.budget.way == SECONDS else 0.0,
            "rank_history": self.rank_history,
            "lr_schedule": self._lr_schedule.state_dict(),
            "average_steps": self._average.num_steps if self._average else 0,
            "scaler": scaler.state_dict() if scaler else {},
            "micro_batch": self._micro_batch.progress,
            "mixed_precision": self.accelerator.mixed_precision,
        }
        tensors = {name: t for prefix, part in parts.items() for name, t in under_prefix(prefix, part).items()}
        return Checkpoint(tensors=tensors, facts=facts)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; the models have its weights already, by `restore_weights`.

        In the precision that `auto` means here, where the checkpoint was written on another kind of device; fp16's
        scaler then starts anew.
        """
        facts, parameters = checkpoint.facts, dict(trained_parameters(self.models))
        self.step, self.next_epoch, self.rank_history = facts["step"], facts["next_epoch"], facts["rank_history"]
        self.spent_s = facts["spent_s"]
        if facts["under_way"] is not None:
            losses = checkpoint.under("epoch")["losses"].to(self.accelerator.device)
            self._under_way = EpochUnderWay.of(facts["under_way"], losses)
        self._lr_schedule.load_state_dict(facts["lr_schedule"])
        lrs, tensors = [float(lr) for lr in self._lr_schedule.get_last_lr()], checkpoint.under("optimizer")
        restore_optimizer(self._optimizer.optimizer, parameters, tensors=tensors, lrs=lrs)
        self._micro_batch.go_on(facts["micro_batch"])
        restore_scaler(self.accelerator, facts)
        if self._average is not None:
            averages = checkpoint.under("average")
            values = [averages[path].to(parameter.device) for path, parameter in parameters.items()]
            self._average.values, self._average.num_steps = values, facts["average_steps"]

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """The weights that are evaluated and exported (averaged, where EMA is on), in evaluation mode."""
        for module in self.models.components().values():
            module.eval()
        with self._average.in_place_of(self._parameters) if self._average else nullcontext():
            yield

    def _epoch(self, epoch: int) -> EpochReport:
        for name in self.strategy.trains:
            self.models.component(name).train()
        if not (self._under_way.losses and self._under_way.epoch == epoch):  # else it was suspended in it
            self._under_way = EpochUnderWay(epoch=epoch, first_step=self.step)
        under_way, self._failed_s = self._under_way, 0.0
        self._began_s = time.perf_counter() - under_way.seconds
        if not under_way.losses or not self.course.is_spent(epoch, self.step, self.spent_s):
            self._take_steps(under_way)
        mean_loss = self._check(under_way.losses, under_way)
        under_way.seconds = self._epoch_s()
        self.next_epoch = epoch + 1
        num_images = self.plan.images_after(self.step) - self.plan.images_after(under_way.first_step)
        return EpochReport(
            epoch=epoch,
            loss=mean_loss,
            lr=under_way.lr,
            epoch_s=under_way.seconds,
            images_per_s=num_images / under_way.seconds,
            peak_memory_gib=under_way.peak_memory_gib,
            num_workers=self.accelerator.num_processes,
            trainable_parameters=self.strategy.num_parameters(self.models),
            mixed_precision=self.accelerator.mixed_precision,
        )

    def _epoch_s(self) -> float:
        """Seconds that training has taken in the epoch that is under way."""
        return time.perf_counter() - self._began_s - self._failed_s

    def _take_steps(self, under_way: EpochUnderWay) -> None:
        """Take those that are left of an epoch.

        Raises:
            SuspendedError: the training was suspended after one of them.
        """
        memory, before_s = MemoryWatch(self.accelerator.device), self.spent_s - under_way.seconds
        with closing(self._batches()) as batches:
            for share, host in batches:
                under_way.lr = float(self._lr_schedule.get_last_lr()[0])
                under_way.losses.append(self._train_step(share, host))
                memory.sample()
                if len(under_way.losses) % CHECK_EVERY_STEPS == 0:
                    self._check(under_way.losses[-CHECK_EVERY_STEPS:], under_way)
                under_way.seconds = self._epoch_s()
                self.spent_s = self._agreed(before_s + under_way.seconds)
                is_over = self.course.is_spent(under_way.epoch, self.step, self.spent_s)
                is_suspended = self._agreement.is_reached(ends_epoch=is_over)
                if is_over or is_suspended:
                    break
        under_way.losses = self._over_workers(under_way.losses)
        under_way.peak_memory_gib = max(under_way.peak_memory_gib, memory.peak_gib())
        if is_suspended:
            raise SuspendedError

    def _batches(self) -> Generator[tuple[Share, HostBatch], None, None]:
        """The shares from where the training is, pass after pass over the images, each with what it is made of."""
        while True:
            images_pass, done = divmod(self.step, self.plan.steps_per_epoch)
            shares = islice(self.plan.epoch(images_pass, self.accelerator.process_index), done, None)
            draws = EpochDraws(self.plan.seed, images_pass, self.plan.num_images)
            yield from self.feeder.batches(shares, draws, self.accelerator.device)

    def _agreed(self, spent_s: float) -> float:
        """Seconds by which all workers decide alike, where the clock decides."""
        if self.budget.way != SECONDS or self.accelerator.num_processes == 1:
            return spent_s
        return float(self.accelerator.reduce(torch.tensor(spent_s, device=self.accelerator.device), reduction="mean"))

    def _train_step(self, share: Share, host: HostBatch) -> Tensor:
        step = TrainingStep(number=self.step, num_steps=self._num_steps(), seed=self.plan.seed)
        total = self._computed(step, share, host)
        with expected_to_fit(f"optimiser's step {self.step}"):
            self._update(step)
        self.step += 1
        return total

    def _update(self, step: TrainingStep) -> None:
        """Move what trains by the gradients that a step has, and let follow what follows from that."""
        self.strategy.on_gradients(self.models, lambda tensor: self.accelerator.reduce(tensor, reduction="mean"))
        self.accelerator.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        self._optimizer.step()
        if not self._optimizer.step_was_skipped:  # fp16's gradients overflowed; the scale is lower next time
            self._lr_schedule.step()
        change = self.strategy.on_step_end(self.models, step)
        self._optimizer.zero_grad(set_to_none=True)
        if change is not None:
            self._take_up(change)
        if self._average is not None:
            self._average.step(self._parameters)

    def _computed(self, step: TrainingStep, share: Share, host: HostBatch) -> Tensor:
        """A share's weighted loss, with its gradients; taken anew in smaller micro-batches where memory runs out."""
        while (total := self._attempt(step, share, host, loss=self._loss)) is None:
            self._micro_batch.failed()
            self._expect_alone()
        self._micro_batch.fitted(len(share.indices))
        return total

    def _attempt(self, step: TrainingStep, share: Share, host: HostBatch, *, loss: nn.Module) -> Tensor | None:
        """The same in the micro-batches of this attempt, or None and no gradients where memory ran out."""
        started_s, device = time.perf_counter(), self.accelerator.device
        with seeded_dropout(device, step.seed, step.number, self.accelerator.process_index):
            self.strategy.on_step_start(self.models, step)
            try:
                numbers = step.number * self.plan.batch_size + share.first + np.arange(len(share.indices))
                return self._accumulated(loss, micro_batches(share, self._micro_batch.size), host, numbers)
            except torch.OutOfMemoryError:
                pass  # Its trace holds tensors, and goes at the end of this block.
        self._optimizer.zero_grad(set_to_none=True)
        give_back_memory(device)
        self._failed_s += time.perf_counter() - started_s
        return None

    def _accumulated(
        self, loss: nn.Module, parts: Sequence[tuple[slice, float]], host: HostBatch, numbers: NDArray[np.int64]
    ) -> Tensor:
        total = torch.zeros((), device=self.accelerator.device)
        for part, weight in parts:
            rows = filled(part, 0 if self.compiler is None else self._micro_batch.size)
            batch = self.feeder.device_batch(
                {name: tensor[rows] for name, tensor in host.items()}, self.accelerator.device
            )
            self.strategy.on_batch(self.models, numbers[rows])
            with self._sync_only_if(part == parts[-1][0]), expected_to_compile():
                weighted = weight * loss(batch, part.stop - part.start)
                self.accelerator.backward(weighted)
            total += weighted.detach()
        return total

    def _expect_alone(self) -> None:
        """Where others wait for gradients, a step cannot be taken anew.

        Raises:
            NotEnoughMemoryError: there are other workers.
        """
        if self.accelerator.num_processes > 1:
            raise NotEnoughMemoryError(
                f"`training.micro_batch` must fit into each worker's memory at every step, but got too large a one at step "
                f"{self.step}; the next smaller is {self._micro_batch.size}. Set it to that."
            )

    def _settle_micro_batch(self) -> None:
        """Have workers of a group try, on the first images and without a step, until they agree on a micro-batch."""
        draws, first = EpochDraws(self.plan.seed, 0, self.plan.num_images), np.arange(self._largest_share())
        step = TrainingStep(number=0, num_steps=self._num_steps(), seed=self.plan.seed)
        while self.accelerator.num_processes > 1 and not self._micro_batch.is_settled:
            size = self._micro_batch.size
            share, host = Share(first[:size], 1.0), self.feeder.host_batch(first[:size], draws)
            # Not through the wrapper, in which each would wait for the others.
            total = self._attempt(step, share, host, loss=self._loss.module)
            self._optimizer.zero_grad(set_to_none=True)
            has_failed = torch.tensor(float(total is None), device=self.accelerator.device)
            if self.accelerator.reduce(has_failed, reduction="sum") > 0:
                self._micro_batch.failed()
            else:
                self._micro_batch.fitted(size)

    def _take_up(self, change: Change) -> None:
        """Note an adapter's new ranks, and train on with the parameters that it has now."""
        ranks = {**self.rank_history[-1]["ranks"], **change.ranks}
        self.rank_history.append({"step": self.step + 1, "ranks": ranks})
        if not change.grown:
            return
        adopt(change.grown, self._optimizer.optimizer)
        if self._average is not None:
            adopt_average(change.grown, self._average, self._parameters)
        new = {id(growth.old): growth.new for growth in change.grown}
        self._parameters = [new.get(id(parameter), parameter) for parameter in self._parameters]
        if isinstance(self._loss, DistributedDataParallel):  # it averages the gradients of the old parameters
            # Not by `prepare`, which would wrap the module in another layer of mixed precision each time.
            self._loss = DistributedDataParallel(self._loss.module, device_ids=self._loss.device_ids)

    def _sync_only_if(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.accelerator.no_sync(self._loss)

    def _check(self, losses: list[Tensor], under_way: EpochUnderWay) -> float:
        where = f"in epoch {under_way.epoch} before step {self.step} at lr {under_way.lr:.3g} ({self.strategy.name})"
        return finite_mean(self._over_workers(losses), where)

    def _over_workers(self, losses: list[Tensor]) -> list[Tensor]:
        """Of each the mean over all workers, who hold the losses of their own images and must agree on when to stop."""
        return list(self.accelerator.reduce(torch.stack(losses), reduction="mean"))
