"""The core space: every strategy with its own hyperparameters, at Stable Diffusion 1.5's learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from optuna import Trial

Fixed = Mapping[str, Mapping[str, Any]]
NOTHING: Final[Fixed] = {}
STRATEGIES: Final = (
    "unet", "lora", "dora", "adalora", "dylora", "selora", "bitfit", "norm", "attention", "difffit", "delta_full",
    "text_encoder", "vae", "textual_inversion", "unet+text_encoder", "unet+vae", "vae+text_encoder", "all",
    "lora+text_encoder",
)  # fmt: skip
ENCODERS: Final = ("StanfordAIMI/RadBERT", "cambridgeltl/SapBERT-from-PubMedBERT-fulltext")
COMBINATIONS: Final = {"all": ("unet", "vae", "text_encoder")}
"""Parts of combinations whose names do not spell them."""
OF_TEXT: Final = ("text_encoder", "textual_inversion")
"""What trains the text encoder, so that no other part of its combination can."""
THRESHOLDS: Final = (1.1, 1.3, 1.6, 2.0)
INTERVALS: Final = (10, 20, 40, 80)
RANKS: Final = (2, 4, 8, 16, 32)
ALPHA_RATIOS: Final = (1.0, 2.0, 4.0)
LEARNING_RATES: Final = {
    "unet": (2e-6, 1e-4),
    "lora": (2e-5, 2e-3),
    "dora": (2e-5, 2e-3),
    "selora": (1e-5, 1e-3),
    "adalora": (5e-5, 5e-3),
    "dylora": (2e-5, 2e-3),
    "bitfit": (5e-5, 5e-3),
    "norm": (5e-5, 5e-3),
    "attention": (5e-6, 5e-4),
    "difffit": (1e-4, 1e-2),
    "delta_full": (2e-6, 1e-4),
    "text_encoder": (1e-6, 5e-5),
    "vae": (1e-6, 5e-5),
    "textual_inversion": (1e-4, 1e-2),
    "text_encoder_swap": (5e-6, 2e-4),
}
"""Log-uniform ranges about the published values: 1e-5 for the whole U-Net, alone or with others, 5e-6 for the text encoder
alone, 1e-6 for the autoencoder, 1e-4 for LoRA, DoRA, DyLoRA, SeLoRA and BitFit, 5e-4 to 2e-3 for AdaLoRA, 1e-3 for
DiffFit and new tokens, 5e-5 with another text encoder, 1e-6 for the text encoder beside others. Norms are taken like
biases, attention between. Each part of a combination has its own range."""
BATCH_SIZES: Final = (4, 8, 16)


def core(trial: Trial, strategies: Sequence[str] = STRATEGIES, fixed: Fixed = NOTHING) -> dict[str, Any]:
    """Suggest a strategy with its hyperparameters, a learning rate and a batch size, for Stable Diffusion 1.5. See `suggest_choice`."""
    return suggest_choice(trial, strategies, fixed, learning_rates=LEARNING_RATES, batch_sizes=BATCH_SIZES)


def suggest_choice(
    trial: Trial,
    strategies: Sequence[str],
    fixed: Fixed,
    *,
    learning_rates: Mapping[str, tuple[float, float]],
    batch_sizes: Sequence[int],
) -> dict[str, Any]:
    """Suggest a strategy, its own hyperparameters, its learning rate and a batch size.

    Args:
        trial: Optuna's record of the trial.
        strategies: Names to choose from.
        fixed: By strategy, hyperparameters that are not suggested but have these values.
        learning_rates: Lowest and highest learning rate of each strategy, alone or as part of a combination.
        batch_sizes: Images of one optimiser step over all workers, to choose from.

    Returns:
        `{"strategy": {"name": ..., <its fields>}, "lr": ..., "batch_size": ...}`. The learning rate of a combination is
        that of its first part; its fields have the others' as ratios to it.
    """
    name = trial.suggest_categorical("strategy", tuple(strategies))
    parts, draw = parts_of(name), Draw(trial, name, fixed.get(name, {}))
    own = _suggest_own(draw, parts)
    lr = draw.rate(learning_rates[parts[0]])
    ratios = _suggest_ratios(draw, parts, lr, learning_rates)
    return {
        "strategy": {"name": name, **own, **ratios, **draw.fixed},
        "lr": lr,
        "batch_size": trial.suggest_categorical("batch_size", tuple(batch_sizes)),
    }


@dataclass(frozen=True)
class Draw:
    """Suggests what is not fixed of a strategy, or of a part of a combination.

    Attributes:
        prefix: stands before the parameters' names in Optuna's records.
        fixed: values by hyperparameter.
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
        """A learning rate, log-uniform from the lowest to the highest."""
        return self.trial.suggest_float(f"{self.prefix}/lr", *bounds, log=True)

    def of_part(self, part: str, beside: Sequence[str]) -> Draw:
        """The same for a part of the combination, beside the others."""
        own = {key.partition(".")[2]: value for key, value in self.fixed.items() if key.startswith(f"{part}.")}
        return Draw(self.trial, f"{self.prefix}/{part}", own, beside)


def parts_of(name: str) -> tuple[str, ...]:
    """The strategies that a combination consists of; of another strategy itself."""
    return COMBINATIONS.get(name, tuple(name.split("+")))


def _suggest_own(draw: Draw, parts: Sequence[str]) -> dict[str, Any]:
    """A strategy's own hyperparameters; of a combination those of its parts."""
    if len(parts) == 1:
        return OWN[parts[0]](draw) if parts[0] in OWN else {}
    found: dict[str, Any] = {}
    for part in parts:
        own = OWN[part](draw.of_part(part, parts)) if part in OWN else {}
        found |= {f"{part}.{field}": value for field, value in own.items()}
    return found


def _suggest_ratios(
    draw: Draw, parts: Sequence[str], lr: float, learning_rates: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """How the learning rates of a combination's parts compare to the trial's, by field, where that is not fixed.

    The trial's is the first part's own, whose ratio would otherwise have its default. The others are drawn from the
    ranges that they have alone: shares of the trial's would leave them in one order of the parts or another.
    """
    if len(parts) == 1:
        return {}
    drawn = [part for part in parts[1:] if f"{part}.lr_ratio" not in draw.fixed]
    rates = {part: draw.of_part(part, parts).rate(learning_rates[part]) for part in drawn}
    return {f"{parts[0]}.lr_ratio": 1.0, **{f"{part}.lr_ratio": rate / lr for part, rate in rates.items()}}


def _suggest_low_rank(draw: Draw) -> dict[str, Any]:
    rank = draw("rank", RANKS)
    if "alpha" in draw.fixed:
        return {"rank": rank, "alpha": draw.fixed["alpha"]}
    # Alpha as a multiple of the rank: what acts on the weights is the scale alpha / rank.
    return {"rank": rank, "alpha": round(rank * draw("alpha_ratio", ALPHA_RATIOS))}


def _suggest_expansion(draw: Draw) -> dict[str, Any]:
    return {"threshold": draw("threshold", THRESHOLDS), "interval": draw("interval", INTERVALS)}


def _suggest_dynamic_rank(draw: Draw) -> dict[str, Any]:
    return {**_suggest_low_rank(draw), "frozen": draw("frozen", (False, True))}


def _suggest_layers(draw: Draw) -> dict[str, Any]:
    return {"layers": draw("layers", ("cross", "all"))}


def _suggest_gammas(draw: Draw) -> dict[str, Any]:
    return {"attention_gammas": draw("attention_gammas", (True, False))}


def _suggest_tokens(draw: Draw) -> dict[str, Any]:
    return {"num_vectors": draw("num_vectors", (1, 2, 4, 8))}


def _suggest_encoder(draw: Draw) -> dict[str, Any]:
    can_train = not set(OF_TEXT) & set(draw.beside)
    return {
        "encoder": draw("encoder", ENCODERS),
        "train_encoder": draw("train_encoder", (False, True) if can_train else (False,)),
    }


OWN: Final[dict[str, Callable[[Draw], dict[str, Any]]]] = {
    "lora": _suggest_low_rank,
    "dora": _suggest_low_rank,
    "selora": _suggest_expansion,
    "adalora": _suggest_low_rank,
    "dylora": _suggest_dynamic_rank,
    "attention": _suggest_layers,
    "difffit": _suggest_gammas,
    "textual_inversion": _suggest_tokens,
    "text_encoder_swap": _suggest_encoder,
}
"""What strategies have besides a learning rate."""
