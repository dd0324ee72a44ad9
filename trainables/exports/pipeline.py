"""The whole adapted model, as a folder that `StableDiffusionPipeline.from_pretrained(folder)` reads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat, Writing

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy


class Pipeline(ExportFormat):
    """The adapter folded into a copy of the base's weights, with the noise scheduler that the engine samples with.

    New tokens are in the folder's tokenizer; a file beside it lets the engine take the words that they stand for.
    """

    name = "pipeline"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds every adapter."""

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write the merged weights; those of the part that the adapter changes carry the metadata."""
        from trainables.base_models.models import PLACEHOLDERS
        from trainables.exports.files import as_written, described, write_metadata
        from trainables.sampling import pipeline_of

        plain, writing = models.fresh(), writing or Writing()
        strategy.merged(plain)
        for module in plain.components().values():
            for parameter in module.parameters():
                parameter.data = as_written(parameter, writing)
        pipeline_of(plain).save_pretrained(folder, safe_serialization=True)
        for part in strategy.trains:
            write_metadata(folder / part, described(models, strategy, writing, "stable-diffusion-v1"))
        if plain.placeholders:
            (folder / PLACEHOLDERS).write_text(json.dumps(dict(plain.placeholders), indent=2) + "\n")

    def next_steps(self, folder: Path, base: str) -> str:
        """Sample it with this project, or load it with diffusers."""
        return (
            f"Sample it: python -m sweep.generate --adapter {shlex.quote(str(folder))} "
            "--prompt 'Chest X-ray of a subject with edema' --num-images 4 --seed 0 --to images\n"
            f"Or load it: StableDiffusionPipeline.from_pretrained({str(folder)!r})"
        )
