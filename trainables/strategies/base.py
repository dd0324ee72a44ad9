"""The contract of a fine-tuning strategy."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.card import ADAPTER_CARD, ADAPTER_FORMAT, ADAPTER_WEIGHTS, read_card, read_weights
from trainables.tensor_files import save_tensors

Sizes = Mapping[str, tuple[Any, ...]]
"""Values by hyperparameter."""


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """Where a training is.

    Attributes:
        number: of the optimiser step, from 0.
        num_steps: of the whole training.
        seed: the trial's, for what a strategy draws while it trains; the same in every worker.
    """

    number: int
    num_steps: int
    seed: int


@dataclass(frozen=True)
class Growth:
    """A parameter that gave way to a larger one, which holds the old values at the start of every dimension.

    Attributes:
        old: the parameter that the optimiser has had until now.
        new: the larger one in its place; both have as many dimensions.
    """

    old: nn.Parameter
    new: nn.Parameter


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a step changed in an adapter's shape.

    Attributes:
        ranks: the rank of every low-rank layer by its path, such as `unet.mid_block...to_q`.
        grown: parameters that were replaced; the optimiser goes on with the new ones.
    """

    ranks: Mapping[str, int]
    grown: tuple[Growth, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """A way of fine-tuning; its fields are its hyperparameters.

    `attach` freezes the base and makes trainable what the strategy trains; from then on `requires_grad` is the truth,
    and export, restore, optimiser groups and parameter counts follow from it.

    When each hook is called in the life of a trial, and where:

    1. Before training, in every worker (`trainables.trial.fine_tune`): `for_conditions`, which fills in what was left to
       the data; `attach`, which calls `inject` and `expect_trained`, on a fresh base and with torch's random numbers
       seeded by the trial, so that all workers begin alike; `expect_captions`; then `ranks`, `param_groups` and
       `reconstruction_weight`. Frozen encoders whose outputs are cached are on the meta device there. A worker that
       finds a cache empty attaches once more, to models of which that encoder alone has its weights.
    2. At each step, in every worker (`trainables.training.FineTuning`): `on_step_start`; `on_batch`, then `penalty`, once
       for each of the batches that are accumulated; `on_gradients` when they are complete, before they are clipped; after the
       optimiser's step `on_step_end`, also where fp16's gradients overflowed and the step was skipped. Then gradients
       are cleared, what has grown is adopted, and the moving average of the weights follows.
    3. After each epoch, in every worker: `num_parameters`, and `ranks` with the weights that are evaluated. Where an
       evaluation is due, in the first worker only: `export`, by `tensors` and `card`; after the last epoch also `cuts`,
       and of each cut `num_parameters`, `ranks` and `export`, on the models that the whole strategy trained.
    4. Where an exported adapter is used (`load_adapter`: in the actors that score, and by `sweep.export`,
       `sweep.generate` and `sweep.evaluate`): `restore`, which calls `attach` on a fresh base, then `fit_to`. Formats
       that write plain weights call `merged`, on a copy.
    5. Without any weights, on the meta device: `attach` in `sweep.preflight`, and in `sweep.describe` besides it
       `tensors`, `num_kept`, `trains`, `summary` and `size_after_training`. These must do without the values of weights.

    What is drawn in a step is drawn by its `TrainingStep`, as workers must change alike.
    """

    sized: ClassVar[Sizes] = {}
    """Hyperparameters beside the rank that decide how much trains, each with the values at which `sweep.describe` shows
    it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Key in the table, tag in MLflow, prefix in the search space."""

    @property
    def trains(self) -> tuple[str, ...]:
        """Components with trained parameters. What is not named here stays frozen, and its outputs may be cached."""
        return ("unet",)

    @property
    def reconstruction_weight(self) -> float:
        """Weight of the autoencoder's reconstruction error in the loss; 0 where the autoencoder stays frozen."""
        return 0.0

    @property
    def summary(self) -> str:
        """What trains, in words."""
        return (inspect.getdoc(type(self)) or "").partition("\n")[0]

    @property
    def size_after_training(self) -> str:
        """How the adapter's size after training compares with that before: `exact`, `at least` or `at most`."""
        return "exact"

    @property
    def counts_on_steps(self) -> bool:
        """Whether it plans by how many optimiser steps there will be, so that it cannot be trained by the clock."""
        return False

    def hyperparameters(self) -> dict[str, Any]:
        """The fields by name; `make_strategy(name, hyperparameters)` gives the strategy back."""
        return asdict(self)

    def num_kept(self, models: DiffusionModels) -> int:
        """How many numbers the strategy keeps of its own while it trains, beside weights, gradients and moments."""
        return 0

    def for_conditions(self, conditions: Sequence[str]) -> Strategy:
        """The same, with hyperparameters that were left to the data filled in from its conditions."""
        return self

    def expect_captions(  # noqa: B027 - most train whatever captions say
        self, models: DiffusionModels, token_ids: Tensor, conditions: Sequence[str]
    ) -> None:
        """Refuse training captions by which a part of what trains would never be touched.

        Args:
            models: with the strategy attached.
            token_ids: of all distinct captions, int64[n, t], padded and cut as they are in training.
            conditions: of the data, for the message.
        """

    @property
    def identified_elsewhere(self) -> frozenset[str]:
        """Hyperparameters that say where something lies that the adapter's card identifies by its content.

        A text encoder's folder is one: on another machine it lies elsewhere, and what counts is the hash of its weights
        and vocabulary, `text_source` in the card. So these may differ from the card's when an adapter is restored.
        """
        return frozenset()

    @abstractmethod
    def inject(self, models: DiffusionModels) -> None:
        """Make exactly the trained parameters require gradients, adding modules where the method needs them.

        Every parameter is frozen when this is called.
        """

    def attach(self, models: DiffusionModels) -> None:
        """Freeze the base, then set up what trains.

        Raises:
            ValueError: nothing in the base model matches what the strategy trains.
        """
        for module in models.components().values():
            module.requires_grad_(False)
        self.inject(models)
        self.expect_trained(models)

    def expect_trained(self, models: DiffusionModels) -> None:
        """Refuse a base of which nothing would train.

        Raises:
            ValueError: no parameter matches.
        """
        if not any(True for _ in self.trained(models)):
            raise ValueError(
                f"`{self.name}` must match at least one parameter of the base model, but got none in "
                f"{', '.join(self.trains)} of {models.base.name!r}. Choose targets that the base model has."
            )

    def trained(self, models: DiffusionModels) -> Iterator[tuple[str, nn.Parameter]]:
        """The trained parameters of the components that this strategy trains, with their paths."""
        return (entry for entry in trained_parameters(models) if entry[0].partition(".")[0] in self.trains)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the trained parameters at learning rate `lr`."""
        return [{"params": [parameter for _, parameter in self.trained(models)], "lr": lr}]

    def groups_by_decay(
        self, models: DiffusionModels, lr: float, is_scale: Callable[[str], bool]
    ) -> list[dict[str, Any]]:
        """Optimiser groups at learning rate `lr`: of what is decayed, then of scales, which are not.

        Weight decay would pull scales, and with them the base's weights, to zero.

        Args:
            models: with the strategy attached.
            lr: of both groups.
            is_scale: whether a trained parameter multiplies weights of the base, by the last part of its path.
        """
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for path, parameter in self.trained(models):
            groups[is_scale(path.rpartition(".")[2])].append(parameter)
        return [{"params": groups[False], "lr": lr}, {"params": groups[True], "lr": lr, "weight_decay": 0.0}]

    def on_step_start(self, models: DiffusionModels, step: TrainingStep) -> None:  # noqa: B027 - most need nothing here
        """Called before each step's first forward pass, for strategies that draw ranks or try out new ones.

        Where memory runs out in a step, its gradients are dropped and this is called for it again, to begin it anew.
        """

    def on_batch(self, models: DiffusionModels, numbers: NDArray[np.int64]) -> None:  # noqa: B027 - most treat all alike
        """Called before each forward pass of a step, for strategies that do not train all images alike.

        Args:
            models: that see the batch next.
            numbers: of its images, int64[n], from 0 in the order in which the training takes them, over all workers.
        """

    def penalty(self, models: DiffusionModels) -> Tensor | None:
        """What is added to the loss of every batch, or nothing."""
        return None

    def on_gradients(self, models: DiffusionModels, mean: Callable[[Tensor], Tensor]) -> None:  # noqa: B027
        """Called when a step's gradients are complete, before they are clipped; fp16 may have scaled them all alike.

        Args:
            models: with the gradients.
            mean: averages a tensor over the workers; gradients of trained parameters are averaged already.
        """

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """Called after each optimiser step, before gradients are cleared, for strategies that change while training."""
        return None

    def training_state(self, models: DiffusionModels) -> dict[str, Tensor]:
        """What it keeps of its own from one step to the next, beside the trained parameters, by name."""
        return {}

    def resume(self, models: DiffusionModels, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - most keep nothing
        """Take up the `training_state` of other models, whose parameters these have already."""

    def ranks(self, models: DiffusionModels) -> dict[str, int]:
        """The rank of every low-rank layer by its path; empty for strategies without such layers."""
        return {}

    def cuts(self) -> Mapping[str, Strategy]:
        """Smaller strategies whose adapters this one's training yields too; each becomes a point of the front.

        Returns:
            Strategies by a label such as `rank2`; their `tensors` are taken from the models that this one trained.
        """
        return {}

    @property
    def names_its_cuts(self) -> bool:
        """Whether the user named the cuts: then all are scored, else those are that may be worth it."""
        return False

    def merged(self, models: DiffusionModels) -> None:  # noqa: B027 - nothing to fold where nothing was added
        """Fold what was added into plain weights, in place, so that any Stable Diffusion program can load them."""

    def tensors(self, models: DiffusionModels) -> dict[str, Tensor]:
        """What the adapter consists of, by path."""
        return {path: parameter.detach() for path, parameter in self.trained(models)}

    def num_parameters(self, models: DiffusionModels) -> int:
        """How many numbers the adapter consists of."""
        return sum(tensor.numel() for tensor in self.tensors(models).values())

    def export(self, models: DiffusionModels, folder: Path) -> None:
        """Write the adapter's tensors as safetensors, with a card that says what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self.tensors(models), folder / ADAPTER_WEIGHTS)
        (folder / ADAPTER_CARD).write_text(json.dumps(self.card(models), indent=2) + "\n")

    def card(self, models: DiffusionModels) -> dict[str, Any]:
        """What the adapter is: format, strategy, hyperparameters, base, side of its films, and its text encoder's hash.

        The hash is there where the text encoder is another than the base's.
        """
        return {
            "format": ADAPTER_FORMAT,
            "strategy": self.name,
            "hyperparameters": self.hyperparameters(),
            "base": asdict(models.base),
            "resolution_px": models.resolution_px,
            **({"text_source": models.text_source} if models.text_source else {}),
        }

    def restore(self, models: DiffusionModels, folder: Path) -> None:
        """Attach to a fresh base and load what `export` wrote; the models then give the same pixels, of the same side.

        Raises:
            ValueError: the adapter is another base's or strategy's, or was trained with other hyperparameters, or its
                tensors do not fit.
        """
        card = read_card(folder)
        self.expect_ours(card, models)
        models.for_films_of(card.get("resolution_px"))  # earlier cards lack it: theirs is the base's own
        tensors = read_weights(folder)
        self.attach(models)
        self.expect_text_source(card, models)
        self.fit_to(models, tensors)
        load_trained(models, tensors)

    def fit_to(self, models: DiffusionModels, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027 - most have one shape
        """Give trained parameters the shapes of an adapter's tensors, where training may have changed them."""

    def expect_ours(self, card: Mapping[str, Any], models: DiffusionModels) -> None:
        """Refuse the card of an adapter of another strategy, other hyperparameters or another base."""
        expect(
            card["strategy"] == self.name,
            f"`strategy` must be {self.name!r}",
            repr(card["strategy"]),
            "Restore with the adapter's own strategy.",
        )
        self.expect_hyperparameters(card["hyperparameters"])
        expect(
            card["base"]["weights_hash"] == models.base.weights_hash,
            f"`base` must have weights {models.base.weights_hash} ({models.base.name})",
            f"{card['base']['weights_hash']} ({card['base']['name']})",
            "Load the base model that the adapter was trained on.",
        )

    def expect_hyperparameters(self, theirs: Mapping[str, Any]) -> None:
        """Refuse those of an adapter's card that differ from this strategy's."""
        ours = json.loads(json.dumps(self.hyperparameters()))
        compared = theirs.keys() - self.identified_elsewhere
        differing = sorted(key for key in compared if key not in ours or ours[key] != theirs[key])
        expect(
            not differing,
            "`hyperparameters` must be the adapter's, " + _listed(theirs, differing),
            _listed(ours, differing),
            "Restore with the adapter's own hyperparameters, as `load_adapter` does.",
        )

    def expect_text_source(self, card: Mapping[str, Any], models: DiffusionModels) -> None:
        """Refuse a text encoder in the place of the base's that is not the one that the adapter was trained with."""
        due = card.get("text_source", "")
        expect(
            models.text_source == due,
            f"`encoder` must have the weights and vocabulary {due or 'of the base'}",
            models.text_source or "the base's",
            "Put the encoder back that the adapter was trained with.",
        )


def trained_parameters(models: DiffusionModels) -> Iterator[tuple[str, nn.Parameter]]:
    """Trained parameters with their paths, such as `unet.mid_block.resnets.0.conv1.bias`."""
    for component, module in models.components().items():
        for path, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{component}.{path}", parameter


def num_trainable_parameters(models: DiffusionModels) -> int:
    """How many numbers train."""
    return sum(parameter.numel() for _, parameter in trained_parameters(models))


def load_trained(models: DiffusionModels, tensors: dict[str, Tensor]) -> None:
    """Give the trained parameters of the same paths and shapes these values, in memory of their own.

    What was there is not written to: other models may share it.
    """
    trained = dict(trained_parameters(models))
    missing, unknown = sorted(trained.keys() - tensors.keys()), sorted(tensors.keys() - trained.keys())
    rule = f"`{ADAPTER_WEIGHTS}` must hold exactly the trained tensors"
    expect(not missing, rule, f"none for {missing[:3]}", "Restore with the strategy and hyperparameters of the export.")
    expect(not unknown, rule, f"{unknown[:3]} besides", "Restore with the strategy and hyperparameters of the export.")
    for path, parameter in trained.items():
        shape, due = tuple(tensors[path].shape), tuple(parameter.shape)
        expect(shape == due, f"`{path}` must have shape {due}", str(shape), "Use the rank it was trained with.")
        is_finite = tensors[path].is_floating_point() and bool(tensors[path].isfinite().all())
        expect(is_finite, f"`{path}` must hold finite numbers", str(tensors[path].dtype), "Export the adapter again.")
    with torch.no_grad():
        for path, parameter in trained.items():
            parameter.data = torch.empty_like(parameter).copy_(tensors[path])


def _listed(values: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name}={values.get(name, 'none')!r}" for name in names)
