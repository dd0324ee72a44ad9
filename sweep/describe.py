"""`python -m sweep.describe`: what each strategy trains on a base model, and what that costs; no weights needed."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from analysis.checks import unknown_name
from analysis.terminal import explained, new_console

if TYPE_CHECKING:
    from trainables.strategies.overview import Entry

NAMED_BASES: Final = ("mini", "sd15")
BOUNDS: Final = {"at least": "≥", "at most": "≤"}
MEMORY_NOTE: Final = (
    "Training memory: float32 weights of the U-Net and of what else trains, gradients, AdamW's two moments, and what the "
    "strategy keeps of its own (AdaLoRA's importance, DyLoRA's copies). Not in it: "
    "activations (they grow with batch and image size), frozen encoders (loaded only where training.cache_latents is "
    "off), the moving average (training.ema_decay), half-precision copies, and what the accelerator's libraries take."
)


def as_table(entries: list[Entry], title: str) -> Table:
    """The entries for the terminal."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("strategy", no_wrap=True)
    table.add_column("hyperparameters", no_wrap=True)
    table.add_column("trains", min_width=30)
    for name in ("parameters", "adapter", "training memory"):
        table.add_column(name, justify="right")
    before = None
    for entry in entries:
        again = entry.strategy == before
        if not again and before is not None:
            table.add_section()
        chosen = ", ".join(f"{key.replace('_', ' ')} {str(value).lower()}" for key, value in entry.chosen.items())
        table.add_row("" if again else entry.strategy, chosen, *_figures(entry, again))
        before = entry.strategy
    return table


def _figures(entry: Entry, again: bool) -> tuple[str | Text, ...]:
    footprint = entry.footprint
    if footprint is None:
        return Text(entry.problem or "", style="red"), "", "", ""
    summary = "" if again else footprint.summary
    bound = BOUNDS.get(footprint.adapter_after_training, "")
    adapter = f"{bound} {size(footprint.adapter_bytes)}".strip()
    return summary, f"{footprint.trainable_parameters:,}", adapter, size(footprint.training_bytes)


def size(num_bytes: int) -> str:
    """Bytes as one reads them, to three digits or so."""
    amount = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


def expect_base(base: str) -> None:
    """Refuse what is neither a named base nor a folder or file, before anything slow is imported.

    Raises:
        ValueError: it is neither.
    """
    if base not in NAMED_BASES and not Path(base).expanduser().exists():
        raise ValueError(
            unknown_name("--base", base, NAMED_BASES) + " Or give a folder of Stable Diffusion 1.5's layout, or a file."
        )


def main(
    base: Annotated[
        str, typer.Option(help="mini, sd15, or a pipeline's folder or file.", metavar="NAME|PATH")
    ] = "sd15",
    rank: Annotated[int, typer.Option(min=1, help="Of the low-rank strategies.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Describe every strategy on a base model: what trains, how many parameters, how large. No weights are needed.

    Example: python -m sweep.describe --base sd15 --rank 16
    """
    console = new_console()
    with explained():
        expect_base(base)
        with new_console(stderr=True).status(f"Counting {base} ..."):
            from trainables.base_models.shapes import (
                base_on_meta,  # torch takes seconds; wrong input is answered before
            )
            from trainables.strategies.footprint import num_parameters
            from trainables.strategies.overview import overview

            models = base_on_meta(base)
            entries = overview(models, rank)
    counts = {name: num_parameters(module) for name, module in models.components().items()}
    if as_json:
        strategies = [entry.as_dict() for entry in entries]
        document = {"base": base, "parameters": counts, "strategies": strategies, "memory": MEMORY_NOTE}
        print(json.dumps(document, indent=2))
        return
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
    console.print(as_table(entries, f"{base}: {parts} parameters"))
    console.print(MEMORY_NOTE)


if __name__ == "__main__":
    gc.disable()  # collecting takes a sixth of its seconds and frees next to nothing
    typer.run(main)
