"""Low-rank layers as PEFT's own folders, one a component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat, Writing

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
PREFIX = "base_model.model."
"""How PEFT's names of tensors begin."""


class Peft(ExportFormat):
    """A folder a component for `PeftModel.from_pretrained(pipeline.unet, folder / "unet")`, new tokens beside them."""

    name = "peft"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds low-rank layers, and new tokens beside them."""
        from trainables.exports.fitting import cannot_hold, expect_only, held_by_tokens
        from trainables.exports.low_rank_file import low_rank_paths

        rule, layers = "`format` peft must have low-rank layers", low_rank_paths(models)
        expect_only([*layers, *held_by_tokens(models)], models, strategy, rule=rule)
        if not layers:
            raise cannot_hold(rule, strategy, "", "diffusers")

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write each component's configuration and tensors."""
        from peft import LoraConfig

        from trainables.exports.files import described, write_companions, write_tensors
        from trainables.exports.low_rank_file import low_rank_parts

        self.expect_fits(models, strategy)
        writing = writing or Writing()
        metadata = described(models, strategy, writing, "stable-diffusion-v1/lora")
        for component, part in low_rank_parts(models).items():
            tensors = {f"{PREFIX}{path}.{name}": tensor for (path, name), tensor in part.tensors.items()}
            write_tensors(tensors, folder / component / WEIGHTS, writing, metadata)
            config = LoraConfig(**part.settings(), base_model_name_or_path=models.base.source, inference_mode=True)
            config.save_pretrained(str(folder / component))
        write_companions(models, folder)

    def next_steps(self, folder: Path, base: str) -> str:
        """Load every component with PEFT."""
        from trainables.exports.steps import scheduler_step, token_steps

        lines = [f"Load it with PEFT, on a pipeline of the base {base!r}:"]
        for file in sorted(folder.glob(f"*/{CONFIGURATION}")):
            name = file.parent.name
            lines.append(
                f"    pipeline.{name} = PeftModel.from_pretrained(pipeline.{name}, {str(file.parent)!r})"
                ".merge_and_unload()"
            )
        return "\n".join([*lines, *token_steps(folder), scheduler_step(folder)])
