"""The adapter alone, in the files of diffusers' loaders: low-rank layers, new tokens, or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat

if TYPE_CHECKING:
    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

TOKENS = "tokens"
"""Folder of the new tokens' files; beside the low-rank file they would be taken for others of its kind."""
SCHEDULER = "scheduler"


class Diffusers(ExportFormat):
    """Low-rank layers for `load_lora_weights(folder)`, a file in `tokens/` a new token for `load_textual_inversion(file)`.

    The noise scheduler that the engine samples with is written beside them, in `scheduler/`.
    """

    name = "diffusers"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds low-rank layers and new tokens and nothing else."""
        from trainables.exports.low_rank_file import low_rank_paths
        from trainables.naming import expect
        from trainables.strategies.textual_inversion import extended_embeddings

        extended = [f"text_encoder.{path}." for path, _ in extended_embeddings(models.text_encoder)]
        held = (*low_rank_paths(models), *extended)
        expect(
            all(path.startswith(held) for path in strategy.tensors(models)),
            "`format` diffusers must have a low-rank adapter or new tokens",
            f"an adapter by {strategy.name!r}",
            "Export it as a pipeline, which every strategy can be.",
        )

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path) -> None:
        """Write the adapter's files."""
        from trainables.exports.low_rank_file import write_low_rank
        from trainables.sampling import noise_scheduler_of

        self.expect_fits(models, strategy)
        folder.mkdir(parents=True, exist_ok=True)
        write_low_rank(models, folder)
        _write_tokens(models, folder / TOKENS)
        noise_scheduler_of(models.scheduler_config).save_pretrained(folder / SCHEDULER)

    def next_steps(self, folder: Path, base: str) -> str:
        """Load what there is, with the scheduler, and write the tokens in prompts."""
        tokens = sorted((folder / TOKENS).glob("*.safetensors"))
        lines = [f"Load it with diffusers, on the base {base!r}:"]
        if any(folder.glob("*.safetensors")):
            lines.append(f"    pipeline.load_lora_weights({str(folder)!r})")
        if tokens:
            files = f"[str(file) for file in sorted(Path({str(folder / TOKENS)!r}).glob('*.safetensors'))]"
            lines.append(f"    pipeline.load_textual_inversion({files})")
        noise_scheduler = f"DPMSolverMultistepScheduler.from_pretrained({str(folder)!r}, subfolder={SCHEDULER!r})"
        lines.append(f"    pipeline.scheduler = {noise_scheduler}")
        if tokens:
            lines.append(f"and write the tokens in its prompts: {', '.join(f'<{file.stem}>' for file in tokens)}")
        return "\n".join(lines)


def _write_tokens(models: DiffusionModels, folder: Path) -> None:
    from safetensors.torch import save_file

    from trainables.strategies.textual_inversion import token_vectors

    for token, vectors in token_vectors(models).items():
        folder.mkdir(exist_ok=True)
        save_file({token: vectors.cpu().contiguous()}, folder / f"{token.strip('<>')}.safetensors")
