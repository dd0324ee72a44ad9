"""`python -m sweep.generate`: images from an adapter or an exported pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from analysis.terminal import explained, new_console
from sweep.generation.prompts import Wanted, expect_guidance, wanted_films
from sweep.storage import new_folder
from trainables.exports import EXPORT_CARD
from trainables.naming import without_folders

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainables.base_models.models import DiffusionModels

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Output:
    """How films are written.

    Attributes:
        in_colour: as the model made them, not in grey.
        as_dicom: DICOM files beside the PNG files; they are grey.
        is_marked: with `SYNTHETIC` burnt into the corner.
        batch_size: films that are generated at a time; the films do not depend on it.
    """

    in_colour: bool = False
    as_dicom: bool = False
    is_marked: bool = False
    batch_size: int = BATCH_SIZE


def load_models(adapter: Path, base: str | None, precision: str = "auto") -> tuple[DiffusionModels, dict[str, Any]]:
    """The adapted model, on the GPU where there is one, and what is known of its origin.

    Args:
        adapter: an adapter folder, or a merged pipeline folder.
        base: the base model where the one that the adapter's card names has moved.
        precision: in which it samples.

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
        return models.to(models.unet.device), without_folders(card)
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


def write_images(
    models: DiffusionModels, to: Path, wanted: Sequence[Wanted], record: dict[str, Any], output: Output
) -> Iterator[int]:
    """Generate films, and write them as they come, a sheet of them, and the record.

    Args:
        models: what to sample from.
        to: an existing folder.
        wanted: prompt and seed of each film.
        record: `num_steps`, `guidance_scale` and the origin; written as generation.json with prompts, seeds and files.
        output: how they are written.

    Returns:
        The numbers of films that are finished after each batch; nothing is done until they are asked for.
    """
    from sweep.generation.pictures import SHEET_FILMS, grid, write_png
    from sweep.generation.secondary_capture import Study, write_dicom

    shown: list[NDArray[np.uint8]] = []
    names = [f"{number:04d}.png" for number in range(len(wanted))]
    study = Study(record=record, is_marked=output.is_marked)
    for start in range(0, len(wanted), output.batch_size):
        batch = wanted[start : start + output.batch_size]
        for number, (film, request) in enumerate(zip(_films(models, batch, record, output), batch, strict=True), start):
            write_png(film, to / names[number], request, record)
            if output.as_dicom:
                write_dicom(film, to / f"{number:04d}.dcm", study, request, number + 1)
            shown += [film] if number < SHEET_FILMS else []
        yield len(batch)
    grid(shown, wanted[: len(shown)]).save(to / "sheet.png")
    origin = {
        "prompts": [request.prompt for request in wanted],
        "seeds": [request.seed for request in wanted],
        **record,
    }
    (to / "generation.json").write_text(json.dumps({**origin, "files": names}, indent=2) + "\n")


def _films(
    models: DiffusionModels, wanted: Sequence[Wanted], record: dict[str, Any], output: Output
) -> list[NDArray[np.uint8]]:
    """A batch of films as they are written."""
    import torch

    from sweep.generation.pictures import marked
    from sweep.scoring.streaming import as_grey
    from trainables.sampling import generate

    options = {"num_steps": record["num_steps"], "guidance_scale": record["guidance_scale"], "batch_size": len(wanted)}
    images = generate(models, [request.prompt for request in wanted], [request.seed for request in wanted], **options)
    films = images if output.in_colour else as_grey(torch.from_numpy(images)).numpy()
    return [marked(film) if output.is_marked else film for film in films]


def main(
    adapter: Annotated[Path, typer.Option(help="An adapter folder or an exported pipeline.", metavar="DIR")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="DIR")],
    prompt: Annotated[str | None, typer.Option(help="What the images show.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts, one a line; or a .csv with the columns prompt, seed, count.", metavar="FILE"),
    ] = None,
    num_images: Annotated[int, typer.Option(min=1, help="How many of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of a prompt's first image; the next have the next numbers.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the solver.")] = 20,
    guidance: Annotated[float, typer.Option(help="Weight of the prompt; 1 or less: no guidance.")] = 4.0,
    base: Annotated[str | None, typer.Option(help="The adapter's base, if it has moved.", metavar="NAME|PATH")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16; auto: half on a GPU.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time; they do not depend on it.")] = BATCH_SIZE,
    colour: Annotated[bool, typer.Option("--colour", help="As the model makes them, not in grey.")] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="DICOM files besides, marked as synthetic data.")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Burn SYNTHETIC into a corner.")] = False,
) -> None:
    """Generate images with an adapted model; the same seeds give the same images.

    Example: python -m sweep.generate --adapter exported --prompt "Chest X-ray of a subject with edema" --to images
    """
    console = new_console()
    with explained():
        expect_guidance(guidance)
        wanted = wanted_films(prompt, prompts, seed=seed, num_images=num_images)
        output = Output(in_colour=colour, as_dicom=dicom, is_marked=mark, batch_size=batch_size)
        expect_grey_dicom(output)
        record: dict[str, Any] = {"num_steps": steps, "guidance_scale": guidance}
        with new_folder(to.expanduser()) as folder, Progress(console=console) as progress:
            task = progress.add_task("Loading", total=len(wanted))
            models, origin = load_models(adapter.expanduser(), base, precision)
            record["numerics"] = models.numerics.label
            progress.update(task, description="Generating")
            for done in write_images(models, folder, wanted, {**record, "adapter": origin}, output):
                progress.advance(task, done)
    console.print(f"Wrote {len(wanted)} images, sheet.png and generation.json to {to}.", soft_wrap=True, markup=False)


def expect_grey_dicom(output: Output) -> None:
    """Refuse DICOM files in colour.

    Raises:
        ValueError: both are asked for.
    """
    if output.as_dicom and output.in_colour:
        raise ValueError("`--dicom` must be of grey films, but got --colour. Leave one of them out.")


if __name__ == "__main__":
    typer.run(main)
