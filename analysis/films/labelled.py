"""Grey images with their conditions, and how they are brought before a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import functional as transforms

from analysis.checks import expect, label_table, unique_names

RESIZE_BATCH = 128
SHIFT_SHARE = 1 / 16
GAMMAS = (0.65, 1.55)
MAX_ANGLE = 10.0
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Grey images with their conditions.

    Attributes:
        images: uint8[n, H, W], square.
        labels: bool[n, c], which condition each image shows.
        conditions: names of the c columns.
        patients: the patient of each image, where known; then a study refuses to train and test on the same one.

    Raises:
        ValueError: shapes or types do not match.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    conditions: tuple[str, ...]
    patients: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check everything once."""
        conditions = unique_names(self.conditions)
        labels = label_table(self.labels, (len(check_images(self.images)), len(conditions)))
        patients = None if self.patients is None else tuple(self.patients)
        num_patients = len(self.images) if patients is None else len(patients)
        rule = f"`patients` must name one for each of {len(self.images)} images"
        expect(num_patients == len(self.images), rule, num_patients, "Give one entry an image.")
        for name, value in (("labels", labels), ("conditions", conditions), ("patients", patients)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """The images of these rows."""
        patients = None if self.patients is None else tuple(self.patients[row] for row in rows)
        return type(self)(self.images[rows], self.labels[rows], self.conditions, patients)

    def joined(self, other: LabelledImages) -> LabelledImages:
        """Both sets, one after the other; the patients are dropped where one of the two does not know them."""
        known = self.patients is not None and other.patients is not None
        patients = (*(self.patients or ()), *(other.patients or ())) if known else None
        images = np.concatenate([self.images, other.images])
        return LabelledImages(images, np.concatenate([self.labels, other.labels]), self.conditions, patients)


def require_other_patients(train: LabelledImages, held_out: LabelledImages, name: str) -> None:
    """Refuse held-out images of patients whose images are trained on, where the patients are known.

    Args:
        train: images that are trained on.
        held_out: images that are tested on.
        name: what to call these in a message.
    """
    shared = sorted(set(train.patients or ()) & set(held_out.patients or ()))
    came = f"{len(shared)} shared, such as {shared[:3]}"
    expect(not shared, f"`{name}` must be of other patients than the training images", came, "Split by patient.")


def check_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images, if they are a stack of square 8-bit grey images; otherwise a ValueError."""
    stack = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 3
    came = f"{images.dtype}{list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
    fits = stack and len(images) > 0 and images.shape[1] == images.shape[2]
    expect(fits, "`images` must be square grey uint8[n, H, W], n >= 1", came, "Take one channel and crop to a square.")
    return images


def resize(images: NDArray[np.uint8], side_px: int) -> Tensor:
    """uint8[n, H, W] to uint8[n, side_px, side_px], bilinear and antialiased, in batches."""
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if pixels.shape[-1] == side_px:
        return pixels
    return torch.cat([_resized(part, side_px) for part in torch.split(pixels, RESIZE_BATCH)])


def _resized(pixels: Tensor, side_px: int) -> Tensor:
    levels = functional.interpolate(
        pixels[:, None].float(), size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )
    return levels[:, 0].round().clamp(0, 255).to(torch.uint8)


def standardise(pixels: Tensor, channels: int) -> Tensor:
    """Levels [n, H, W] to float32[n, channels, H, W] of mean 0 and deviation 1 a film: exposure tells nothing."""
    levels = pixels.float()
    mean, deviation = levels.mean(dim=(1, 2), keepdim=True), levels.std(dim=(1, 2), keepdim=True)
    return ((levels - mean) / (deviation + 1e-3)).unsqueeze(1).expand(-1, channels, -1, -1)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move the batch by up to a sixteenth of its side, and bend the grey scale of each film by itself.

    Films are not mirrored: the heart's side is a finding.

    Args:
        pixels: uint8[n, H, W].
        generator: random numbers.

    Returns:
        float32[n, H, W] in [0, 255].
    """
    reach = max(1, int(pixels.shape[-1] * SHIFT_SHARE))
    padded = functional.pad(pixels[:, None].float(), [reach] * 4, mode="replicate")[:, 0] / 255
    left, top = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
    moved = padded[:, top : top + pixels.shape[-2], left : left + pixels.shape[-1]]
    gamma = GAMMAS[0] + (GAMMAS[1] - GAMMAS[0]) * torch.rand(len(pixels), 1, 1, generator=generator)
    bent: Tensor = moved**gamma * 255
    return bent


def standardise_like_imagenet(pixels: Tensor, channels: int) -> Tensor:
    """Levels [n, H, W] to float32[n, channels, H, W] by the means and deviations of ImageNet's three colours."""
    shares = (pixels.float() / 255).unsqueeze(1).expand(-1, channels, -1, -1)
    mean, deviation = (shares.new_tensor(values).view(1, -1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (shares - mean) / deviation


def mirror_and_turn(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every second film by chance and turn each by up to ten degrees, as CheXGenBench does; corners are black.

    Args:
        pixels: uint8[n, H, W].
        generator: random numbers.

    Returns:
        float32[n, H, W] in [0, 255].
    """
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    angles = (2 * torch.rand(len(pixels), generator=generator) - 1) * MAX_ANGLE
    films = torch.where(mirrored.view(-1, 1, 1), pixels.flip(-1), pixels)
    turned = [transforms.rotate(film[None], angle)[0] for film, angle in zip(films, angles.tolist(), strict=True)]
    return torch.stack(turned).float()
