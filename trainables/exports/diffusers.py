"""The adapter alone, in the files of diffusers' loaders: low-rank layers, new tokens, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat, Writing

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.base_models.models import DiffusionModels
    from trainables.exports.low_rank_file import LowRankPart
    from trainables.strategies import Strategy


class Diffusers(ExportFormat):
    """Low-rank layers for `load_lora_weights(folder)`, a file in `tokens/` a new token for `load_textual_inversion(file)`.

    The noise scheduler that the engine samples with is written beside them, in `scheduler/`.
    """

    name = "diffusers"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds low-rank layers and new tokens and nothing else."""
        from trainables.exports.fitting import expect_only, held_by_tokens
        from trainables.exports.low_rank_file import low_rank_paths

        paths = (*low_rank_paths(models), *held_by_tokens(models))
        expect_only(paths, models, strategy, rule="`format` diffusers must have a low-rank adapter or new tokens")

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write the adapter's files."""
        from trainables.exports.files import described, write_companions, write_tensors
        from trainables.exports.low_rank_file import LORA_METADATA_KEY, LORA_WEIGHTS, low_rank_parts

        self.expect_fits(models, strategy)
        writing, parts = writing or Writing(), low_rank_parts(models)
        settings = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.settings().items()}
        metadata = described(models, strategy, writing, "stable-diffusion-v1/lora")
        if parts:
            tensors = {name: tensor for component, part in parts.items() for name, tensor in _named(component, part)}
            write_tensors(
                tensors, folder / LORA_WEIGHTS, writing, {LORA_METADATA_KEY: json.dumps(settings), **metadata}
            )
        write_companions(models, folder)

    def next_steps(self, folder: Path, base: str) -> str:
        """Load what there is, with the scheduler, and write the tokens in prompts."""
        from trainables.exports.steps import scheduler_step, token_steps

        lines = [f"Load it with diffusers, on the base {base!r}:"]
        if any(folder.glob("*.safetensors")):
            lines.append(f"    pipeline.load_lora_weights({str(folder)!r})")
        return "\n".join([*lines, *token_steps(folder), scheduler_step(folder)])


def _named(component: str, part: LowRankPart) -> list[tuple[str, Tensor]]:
    """A component's tensors under the names that `load_lora_weights` looks for."""
    from trainables.exports.low_rank_file import MAGNITUDE

    # transformers' reader puts the adapter's name behind the part, and looks for the magnitude's weight there
    endings = {MAGNITUDE: ".weight" if component == "text_encoder" else ""}
    return [
        (f"{component}.{path}.{name}{endings.get(name, '')}", tensor) for (path, name), tensor in part.tensors.items()
    ]
