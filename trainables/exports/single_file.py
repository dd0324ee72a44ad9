"""The whole adapted model in one file with the names of the original Stable Diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat, Writing

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

FILE = "model.safetensors"
SD2_WIDTH = 1024
"""Width of the text states that Stable Diffusion 2 attends to; 1.x has 768."""
RULE = "`format` single_file must have the parts of Stable Diffusion 1.x"


class SingleFile(ExportFormat):
    """The adapter folded into the base's weights, for `StableDiffusionPipeline.from_single_file` and every web UI.

    The file has no tokenizer: new tokens are beside it.
    """

    name = "single_file"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds neither other text encoders than CLIP's nor Stable Diffusion 2's, which have other names."""
        from trainables.exports.fitting import cannot_hold

        if models.text_source:
            raise cannot_hold(RULE, strategy, "the U-Net for another text encoder", "pipeline")
        if models.unet.config.cross_attention_dim == SD2_WIDTH:
            raise cannot_hold(RULE, strategy, "", "pipeline")

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write the merged weights, the tokens and the scheduler."""
        from trainables.exports.files import described, write_companions, write_tensors
        from trainables.exports.original_names import original_tensors
        from trainables.strategies.textual_inversion import extended_embeddings

        self.expect_fits(models, strategy)
        plain, writing = models.fresh(), writing or Writing()
        for path, layer in list(extended_embeddings(plain.text_encoder)):
            plain.text_encoder.set_submodule(path, layer.base)
        strategy.merged(plain)
        metadata = described(models, strategy, writing, "stable-diffusion-v1")
        write_tensors(original_tensors(plain), folder / FILE, writing, metadata)
        write_companions(models, folder)

    def next_steps(self, folder: Path, base: str) -> str:
        """Load it with diffusers, or give it to a web UI."""
        from trainables.exports.steps import scheduler_step, token_steps

        return "\n".join(
            [
                f"Copy {folder / FILE} to models/Stable-diffusion (AUTOMATIC1111, Forge) or models/checkpoints (ComfyUI), or:",
                f"    pipeline = StableDiffusionPipeline.from_single_file({str(folder / FILE)!r}, config={base!r})",
                *token_steps(folder),
                scheduler_step(folder),
            ]
        )
