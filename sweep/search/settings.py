"""When trials are compared, what none may cost, and when no further one begins, as the configuration says."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from trainables.settings import Count, Positive, Section, Share


class RungsConfig(Section):
    """The epochs after which trials are compared with each other: first * eta^k, below `training.num_epochs`.

    Attributes:
        first: epochs of the first rung. None, the default: `training.num_epochs` / eta^2, rounded up, which gives two rungs
            where the training has epochs enough.
        eta: epochs of a rung over those of the one before; rules that count let one in so many go on. 3 is successive
            halving's usual factor.
        floors: by strategy, the fewest epochs that its trials are trained. By default there is none; strategies that begin
            slowly, such as one that grows its ranks, may need one.
    """

    first: Count | None = None
    eta: Annotated[int, Field(ge=2)] = 3
    floors: dict[str, Count] = Field(default_factory=dict)


class LimitsConfig(Section):
    """The most that a configuration may cost; those above are not tried. By default nothing has a limit (None).

    Attributes:
        trainable_parameters: how many parameters may train when training begins.
        adapter_mib: size that the exported adapter may have before training, in MiB.
        operations_per_image: floating-point operations that a training image may take, with its gradients.
    """

    trainable_parameters: Positive | None = None
    adapter_mib: Positive | None = None
    operations_per_image: Positive | None = None

    def bounds(self) -> dict[str, float]:
        """The limits that are set, by their names."""
        return self.model_dump(exclude_none=True)


class StopConfig(Section):
    """When no further trial begins, before `search.num_trials` have. By default nothing else ends a sweep (None).

    Attributes:
        hours: hours since the command began.
        gpu_hours: hours that training and evaluation of all trials took, times the GPUs of the workers that each
            had then.
        money: what the machines cost since the command began, in the currency of `price_per_hour`.
        price_per_hour: what an hour of all machines together costs.
        growth: the least share by which the front's hypervolume must grow over the last completed trials, in (0, 1].
    """

    hours: Positive | None = None
    gpu_hours: Positive | None = None
    money: Positive | None = None
    price_per_hour: Positive | None = None
    growth: Share | None = None

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.money is None) != (self.price_per_hour is None):
            raise ValueError(
                f"`search.stop.money` must come with `search.stop.price_per_hour`, but got {self.money} and "
                f"{self.price_per_hour}. Give both or neither."
            )
        return self
