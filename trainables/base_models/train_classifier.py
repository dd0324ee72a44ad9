"""Trains the small chest classifier on phantom films: the offline feature extractor of the demo and the tests.

    python -m trainables.base_models.train_classifier --to analysis/features/mini

The network is torchxrayvision's DenseNet class in a small configuration: the code that loads and runs the real
DenseNet-121 is the code that the demo exercises. About ten minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torchxrayvision as xrv
import typer
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.datasets.base import CONDITIONS, ImageTextSample
from trainables.datasets.phantom import PhantomSource

INPUT_PX = 64
NETWORK: dict[str, Any] = {"growth_rate": 16, "block_config": (2, 4, 6, 4), "num_init_features": 32, "bn_size": 2}
BATCH_SIZE = 32
PEAK_LR = 3e-3
WEIGHT_DECAY = 1e-2
MAX_SHIFT_PX = 4
DATA_SEED = 20_000
"""Seed of the phantom that the extractor is trained on, far from the small seeds of others: it has seen the patients of
no sweep."""


@dataclass(frozen=True, kw_only=True)
class Films:
    """Images uint8[n, 64, 64] and labels float32[n, conditions].

    Attributes:
        images: uint8[n, 64, 64], grey.
        labels: float32[n, conditions], 1 where the film shows the condition.
    """

    images: Tensor
    labels: Tensor


def build_network() -> nn.Module:
    """The untrained classifier."""
    network: nn.Module = xrv.models.DenseNet(
        **NETWORK, num_classes=len(CONDITIONS), in_channels=1, apply_sigmoid=False, weights=None
    )
    return network


def logits_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of inputs float32[n, 1, 64, 64] in [-1024, 1024]; the global mean pool takes any size."""
    features: Tensor = network.features(inputs)  # type: ignore[operator]
    pooled = nn.functional.adaptive_avg_pool2d(nn.functional.relu(features), 1).flatten(1)
    logits: Tensor = network.classifier(pooled)  # type: ignore[operator]
    return logits


def normalise(images: Tensor) -> Tensor:
    """Grey levels in [0, 255] to torchxrayvision's range, [-1024, 1024], with a channel axis."""
    return ((images.float() / 255 * 2 - 1) * 1024).unsqueeze(1)


def load_films(source: PhantomSource, split: str) -> Films:
    """Draw all films of a split."""
    samples: list[ImageTextSample] = list(
        track(source.samples(split), description=f"drawing {split}", total=source.num_samples(split))
    )
    labels = [[float(condition in sample.conditions) for condition in CONDITIONS] for sample in samples]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return Films(images=images, labels=torch.tensor(labels))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vary contrast, brightness, gamma, noise and position, each film by itself.

    Args:
        images: uint8[n, 64, 64].
        generator: random numbers.

    Returns:
        Grey levels float32[n, 64, 64] in [0, 255].
    """
    levels: Tensor = _shift(images, generator).float() / 255
    contrast, brightness, gamma, noise = torch.rand(4, len(images), 1, 1, generator=generator)
    levels = levels.clamp_min(1e-4) ** (0.65 + 0.9 * gamma)
    levels = (levels - 0.5) * (0.6 + 0.7 * contrast) + 0.5 + 0.3 * (brightness - 0.5)
    levels = levels + 0.06 * noise**2 * torch.randn(levels.shape, generator=generator)
    return levels.clamp(0, 1) * 255


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the batch by a few pixels, repeating the border."""
    padded = nn.functional.pad(images.unsqueeze(1).float(), [MAX_SHIFT_PX] * 4, mode="replicate").squeeze(1)
    left, top = torch.randint(0, 2 * MAX_SHIFT_PX + 1, (2,), generator=generator).tolist()
    return padded[:, top : top + INPUT_PX, left : left + INPUT_PX]


def train(network: nn.Module, films: Films, num_epochs: int, seed: int) -> None:
    """Fit the network with binary cross-entropy, AdamW and a one-cycle schedule.

    Args:
        network: changed in place.
        films: to train on.
        num_epochs: passes over them.
        seed: draws the order and the augmentation.
    """
    generator = torch.Generator().manual_seed(seed)
    num_steps = num_epochs * (len(films.images) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=WEIGHT_DECAY)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=num_steps)
    network.train()
    for rows in track(_batches(len(films.images), num_epochs, generator), description="training", total=num_steps):
        logits = logits_of(network, normalise(augment(films.images[rows], generator)))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, films.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lr_schedule.step()


def _batches(num_films: int, num_epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(num_epochs):
        order = torch.randperm(num_films, generator=generator)
        yield from torch.split(order[: num_films - num_films % BATCH_SIZE], BATCH_SIZE)


@torch.no_grad()
def probabilities(network: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Probability of each condition, float64[n, conditions], of images uint8[n, 64, 64]."""
    network.eval()
    batches = [torch.sigmoid(logits_of(network, normalise(part))) for part in torch.split(images, 256)]
    return torch.cat(batches).double().numpy()


def area_under_curve(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Chance that a film with the finding scores above one without, in [0, 1]; higher is better, 0.5 is guessing.

    Raises:
        ValueError: all films or none have the finding.
    """
    positives, negatives = np.sort(scores[present]), np.sort(scores[~present])
    if not len(positives) or not len(negatives):
        raise ValueError("`present` must hold both true and false, but got one of them only. Use more films.")
    below = np.searchsorted(negatives, positives, side="left")
    level = np.searchsorted(negatives, positives, side="right")
    return float((below + level).sum() / (2 * len(positives) * len(negatives)))


def areas_by_condition(network: nn.Module, films: Films) -> dict[str, float]:
    """Area under the curve of each condition."""
    scores, present = probabilities(network, films.images), films.labels.numpy() > 0.5
    return {name: round(area_under_curve(scores[:, i], present[:, i]), 4) for i, name in enumerate(CONDITIONS)}


def save(network: nn.Module, folder: Path, card: dict[str, Any]) -> None:
    """Write `weights.safetensors` and `config.json`.

    Args:
        network: the trained one.
        folder: where to write.
        card: what is known of it, for `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    network_card = {**NETWORK, "block_config": list(NETWORK["block_config"])}
    content = {**network_card, "conditions": list(CONDITIONS), "input_px": INPUT_PX, **card}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")


def main(
    to: Annotated[Path, typer.Option(help="Folder for weights.safetensors and config.json.")],
    num_patients: Annotated[int, typer.Option(help="Phantom patients to train and test on.")] = 4500,
    num_epochs: Annotated[int, typer.Option(help="Passes over the training films.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the weights and the batches.")] = 0,
) -> None:
    """Train the bundled chest classifier.

    Example: python -m trainables.base_models.train_classifier --to analysis/features/mini
    """
    torch.manual_seed(seed)
    source = PhantomSource(num_patients=num_patients, resolution_px=INPUT_PX, seed=DATA_SEED)
    network = build_network()
    train(network, load_films(source, "train"), num_epochs, seed)
    areas = areas_by_condition(network, load_films(source, "test"))
    settings = {"num_patients": num_patients, "data_seed": DATA_SEED, "num_epochs": num_epochs, "seed": seed}
    save(network, to, {"auc": areas, "trained_on": {"source": source.name, **settings}})
    for line in _table(areas):
        typer.echo(line)


def _table(areas: dict[str, float]) -> Sequence[str]:
    return [f"{condition:<20} {area:.3f}" for condition, area in areas.items()]


if __name__ == "__main__":
    typer.run(main)
