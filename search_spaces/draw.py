"""Drawing values from an Optuna trial, apart from those that the user has fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna import Trial


@dataclass(frozen=True)
class Draw:
    """Suggests what is not fixed of a strategy, or of a part of a combination.

    Attributes:
        trial: Optuna's record, which gets every value that is drawn.
        prefix: stands before the parameters' names in Optuna's records.
        fixed: values that are not suggested, by hyperparameter.
        beside: of a part, all parts of its combination.
    """

    trial: Trial
    prefix: str
    fixed: Mapping[str, Any]
    beside: Sequence[str] = ()

    def __call__(self, field: str, choices: Sequence[Any]) -> Any:
        """The fixed value of a hyperparameter, or one of the choices."""
        if field in self.fixed:
            return self.fixed[field]
        return self.trial.suggest_categorical(f"{self.prefix}/{field}", tuple(choices))

    def rate(self, bounds: tuple[float, float]) -> float:
        """The fixed learning rate, or one that is log-uniform from the lowest to the highest."""
        if "lr" in self.fixed:
            return float(self.fixed["lr"])
        return self.trial.suggest_float(f"{self.prefix}/lr", *bounds, log=True)

    def batch_size(self, choices: Sequence[int]) -> int:
        """The fixed batch size, or one of those that all strategies are given to choose from."""
        if "batch_size" in self.fixed:
            return int(self.fixed["batch_size"])
        return self.trial.suggest_categorical("batch_size", tuple(choices))

    def of_part(self, part: str, beside: Sequence[str]) -> Draw:
        """The same for a part of the combination, beside the others."""
        fields = {key.partition(".")[2]: value for key, value in self.fixed.items() if key.startswith(f"{part}.")}
        return Draw(self.trial, f"{self.prefix}/{part}", fields, beside)
