"""What the user can do with an export, in lines for the terminal, as far as several formats have it in common."""

from __future__ import annotations

from pathlib import Path

TOKENS = "tokens"
"""Folder of the new tokens' files; beside the low-rank file they would be taken for others of its kind."""
SCHEDULER = "scheduler"


def token_files(folder: Path) -> list[Path]:
    """The files of new tokens beside an export."""
    return sorted((folder / TOKENS).glob("*.safetensors"))


def token_steps(folder: Path) -> list[str]:
    """How diffusers loads the new tokens, and how they are written in prompts."""
    if not (tokens := token_files(folder)):
        return []
    files = f"[str(file) for file in sorted(Path({str(folder / TOKENS)!r}).glob('*.safetensors'))]"
    written = ", ".join(f"<{file.stem}>" for file in tokens)
    return [f"    pipeline.load_textual_inversion({files})", f"    # and write the tokens in its prompts: {written}"]


def scheduler_step(folder: Path) -> str:
    """How diffusers samples as the engine does."""
    return f"    pipeline.scheduler = DPMSolverMultistepScheduler.from_pretrained({str(folder)!r}, subfolder={SCHEDULER!r})"
