"""How good the bundled mini base is: what its autoencoder keeps of a picture, and a sheet of its samples.

python -m benchmarks.mini_base --films ../shared/data/nih_cxr14_1000_64/images --to docs/mini_base.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.pictures import picture
from trainables.sampling import generate
from trainables.sheets import labelled_sheet

UNSEEN = 10_000_000
"""Seeds from here on gave no picture of the pretraining."""
PROMPTS = (
    "a photo of a large red circle in the centre on a plain blue background",
    "a picture of a small yellow star at the top on a striped green and white background",
    "an image of a large purple square on the left on a cloudy pink and black background, in grey",
    "Chest X-ray of a subject with cardiomegaly",
)
COLUMNS = 10


@torch.no_grad()
def reconstruct(models: DiffusionModels, images: NDArray[np.uint8], batch_size: int = 100) -> NDArray[np.uint8]:
    """Images uint8[n, h, w, 3] through the autoencoder and back."""
    parts = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        rebuilt = models.vae.decode(models.vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        parts.append(((rebuilt + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def mean_psnr_db(images: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, averaged over images; higher is better."""
    errors = ((images.astype(np.float64) - rebuilt) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(errors, 1e-12))))


def grey_64px(file: Path) -> NDArray[np.uint8]:
    """A film of 8 bits as the mini base takes it."""
    return np.array(Image.open(file).convert("L").resize((64, 64), Image.Resampling.LANCZOS), np.uint8)


def main(
    films: Annotated[
        Path | None, typer.Option(help="Folder of real 64 px films; without it they are left out.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Where to write a sheet (PNG).")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Pictures, and films at most, to reconstruct.")] = 1000,
) -> None:
    """Measure the mini base's reconstruction and draw a sheet of its samples."""
    models = load_base("mini")
    groups = {"generated pictures it has not seen": np.stack([picture(UNSEEN + i).pixels for i in range(num_images)])}
    if films is not None:
        grey = np.stack([grey_64px(file) for file in sorted(films.glob("*.png"))[:num_images]])
        groups["real films"] = np.repeat(grey[..., None], 3, axis=3)
    table = Table("pictures", "n", "PSNR, dB")
    rows: dict[str, NDArray[np.uint8]] = {}
    for name, images in groups.items():
        rebuilt = reconstruct(models, images)
        table.add_row(name, str(len(images)), f"{mean_psnr_db(images, rebuilt):.1f}")
        rows[name], rows[f"{name}, through the autoencoder"] = images[:COLUMNS], rebuilt[:COLUMNS]
    Console().print(table)
    if to is not None:
        for prompt in PROMPTS:
            seeds = range(COLUMNS)
            rows[prompt] = generate(
                models, [prompt] * COLUMNS, seeds, num_steps=20, guidance_scale=4.0, batch_size=COLUMNS
            )
        labelled_sheet(rows, scale=2).save(to)


if __name__ == "__main__":
    typer.run(main)
