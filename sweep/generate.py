"""`python -m sweep.generate`: images from an adapter or an exported pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from analysis.terminal import explained, new_console
from sweep.storage import new_folder
from trainables.exports import EXPORT_CARD
from trainables.settings import MAX_GUIDANCE

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels

COLUMNS = 4
BATCH_SIZE = 8
NUM_SEEDS = 2**64
"""As many as torch's generator takes."""
MAX_IMAGES = 10_000
"""Whose names have four digits; all are held in memory."""


def load_models(adapter: Path, base: str | None, precision: str = "auto") -> tuple[DiffusionModels, dict[str, Any]]:
    """The adapted model, on the GPU where there is one, and what is known of its origin.

    Args:
        adapter: An adapter folder, or a merged pipeline folder.
        base: The base model where the one that the adapter's card names has moved.
        precision: In which it samples.

    Raises:
        FileNotFoundError: the folder is neither, or the base is not there.
        ValueError: the adapter belongs to another base, or there is no such precision.
    """
    from trainables.strategies import load_adapter
    from trainables.strategies.card import ADAPTER_CARD, read_card

    if (adapter / ADAPTER_CARD).is_file():
        card = read_card(adapter)
        models = _ready(base or card["base"]["name"], precision)
        load_adapter(models, adapter)
        return models.to(models.unet.device), card
    if (adapter / "model_index.json").is_file():
        models = _ready(str(adapter), precision)
        return models, {"pipeline": models.base.weights_hash, **_origin(adapter)}
    raise FileNotFoundError(
        f"`--adapter` must be a folder with an {ADAPTER_CARD} or a model_index.json, but got {str(adapter)!r}. "
        "Give a trial's adapter folder, or what `python -m sweep.export --format pipeline` wrote."
    )


def _ready(base: str, precision: str) -> DiffusionModels:
    """A base model where it samples, and as it does there."""
    import torch

    from trainables.base_models.models import load_base
    from trainables.numerics import numerics_on

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_base(base).to(device).computing_in(numerics_on(device, precision))


def _origin(pipeline: Path) -> dict[str, Any]:
    file = pipeline / EXPORT_CARD
    origin: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return origin


def write_images(models: DiffusionModels, to: Path, record: dict[str, Any], on_progress: Callable[[int], None]) -> None:
    """Generate the images that the record describes, and write them, a sheet of them, and the record.

    Args:
        models: What to sample from.
        to: An existing folder.
        record: `prompt`, `seeds`, `num_steps`, `guidance_scale`; written as generation.json with the files' names.
        on_progress: Called with the number of finished images after each batch.
    """
    from PIL import Image

    from trainables.sampling import generate
    from trainables.sheets import sheet

    seeds = record["seeds"]
    options = {"num_steps": record["num_steps"], "guidance_scale": record["guidance_scale"], "batch_size": BATCH_SIZE}
    images = generate(models, [record["prompt"]] * len(seeds), seeds, on_progress=on_progress, **options)
    names = [f"{index:04d}.png" for index in range(len(seeds))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(to / name)
    sheet(images, COLUMNS).save(to / "sheet.png")
    (to / "generation.json").write_text(json.dumps({**record, "files": names}, indent=2) + "\n")


def expect_numbers(seed: int, num_images: int, guidance: float) -> None:
    """Refuse numbers that cannot be, before anything slow is imported.

    Raises:
        ValueError: there are more images than names, a seed is above 2**64 - 1, or the guidance is NaN or beyond what leaves
            an image finite.
    """
    if num_images > MAX_IMAGES:
        raise ValueError(
            f"`--num-images` must be at most {MAX_IMAGES:,}, but got {num_images:,}. Generate the next with another --seed and --to."
        )
    if seed + num_images > NUM_SEEDS:
        raise ValueError(
            f"`--seed` and those of the next images must be below 2**64, but got {seed} for {num_images} images. Try 0."
        )
    if not abs(guidance) <= MAX_GUIDANCE:  # nor is NaN
        raise ValueError(f"`--guidance` must be a number of at most {MAX_GUIDANCE:g}, but got {guidance:g}. Try 4.")


def main(
    adapter: Annotated[Path, typer.Option(help="An adapter folder or an exported pipeline.", metavar="DIR")],
    prompt: Annotated[str, typer.Option(help="What the images show.")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="DIR")],
    num_images: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image; the next have the next numbers.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the solver.")] = 20,
    guidance: Annotated[float, typer.Option(help="Weight of the prompt; 1 or less: no guidance.")] = 4.0,
    base: Annotated[str | None, typer.Option(help="The adapter's base, if it has moved.", metavar="NAME|PATH")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16; auto: half on a GPU.")] = "auto",
) -> None:
    """Generate images with an adapted model; the same seeds give the same images.

    Example: python -m sweep.generate --adapter exported --prompt "Chest X-ray of a subject with edema" --to images
    """
    console = new_console()
    with explained():
        expect_numbers(seed, num_images, guidance)
        seeds = list(range(seed, seed + num_images))
        record: dict[str, Any] = {"prompt": prompt, "seeds": seeds, "num_steps": steps, "guidance_scale": guidance}
        with new_folder(to.expanduser()) as folder, Progress(console=console) as progress:
            task = progress.add_task("Loading", total=num_images)
            models, origin = load_models(adapter.expanduser(), base, precision)
            record["numerics"] = models.numerics.label
            progress.update(task, description="Generating")
            write_images(models, folder, {**record, "adapter": origin}, lambda done: progress.advance(task, done))
    console.print(f"Wrote {num_images} images, sheet.png and generation.json to {to}.", soft_wrap=True, markup=False)


if __name__ == "__main__":
    typer.run(main)
