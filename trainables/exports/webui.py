"""One file with kohya's names, as AUTOMATIC1111's web UI, Forge and ComfyUI read it: low-rank layers and differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.exports.base import ExportFormat, Writing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainables.base_models.models import DiffusionModels
    from trainables.strategies import Strategy

FILE = "adapter.safetensors"
PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
FACTORS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
RULE = "`format` webui must have changes of the U-Net's and text encoder's layers"


class WebUI(ExportFormat):
    """Low-rank layers as `lora_down`, `lora_up`, `alpha` and `dora_scale`; what else changed as LyCORIS' differences.

    Differences are `diff` and `diff_b` of linear layers and convolutions, `w_norm` and `b_norm` of norms. New tokens are
    beside the file, for the folder of embeddings.

    Source: the names of kohya-ss/sd-scripts and KohakuBlueleaf/LyCORIS.
    """

    name = "webui"

    def expect_fits(self, models: DiffusionModels, strategy: Strategy) -> None:
        """It holds neither autoencoders, nor tables of embeddings, nor other text encoders than CLIP's."""
        from torch import nn

        from trainables.exports.fitting import cannot_hold, held_by_tokens

        if models.text_source:
            raise cannot_hold(RULE, strategy, "the U-Net for another text encoder", "pipeline")
        tokens = tuple(held_by_tokens(models))
        for path in strategy.tensors(models):
            component, _, inner = path.partition(".")
            layer = models.component(component).get_submodule(inner.rpartition(".")[0])
            is_table = isinstance(layer, nn.Embedding)
            if component not in PREFIXES or (is_table and not path.startswith(tokens or ("no tokens",))):
                raise cannot_hold(RULE, strategy, path, "single_file or pipeline")

    def write(self, models: DiffusionModels, strategy: Strategy, folder: Path, writing: Writing | None = None) -> None:
        """Write the file where weights changed, and the tokens."""
        from trainables.exports.files import described, write_companions, write_tensors

        self.expect_fits(models, strategy)
        writing, tensors = writing or Writing(), dict(_low_rank(models))
        ranks = {str(len(tensor)) for name, tensor in tensors.items() if name.endswith("lora_down.weight")}
        tensors |= dict(_differences(models, strategy))
        metadata = described(models, strategy, writing, "stable-diffusion-v1/lora") | {
            "ss_base_model_version": "sd_v1",
            "ss_sd_model_name": models.base.source,
            "ss_network_module": "networks.lora" if ranks else "lycoris.kohya",
            **({"ss_network_dim": max(ranks, key=int), "ss_network_alpha": max(ranks, key=int)} if ranks else {}),
        }
        if tensors:
            write_tensors(tensors, folder / FILE, writing, metadata)
        write_companions(models, folder)

    def next_steps(self, folder: Path, base: str) -> str:
        """Where the files go, and what to write in prompts."""
        from trainables.exports.steps import token_files

        lines = []
        if (folder / FILE).is_file():
            lines.append(
                f"Copy {folder / FILE} to models/Lora (AUTOMATIC1111, Forge) or models/loras (ComfyUI), use it with the "
                f"base {base!r}, and write <lora:adapter:1> in prompts."
            )
        if tokens := token_files(folder):
            names = ", ".join(file.stem for file in tokens)
            lines.append(f"Copy {folder / 'tokens'}/* to embeddings, and write their names in prompts: {names}.")
        return "\n".join(lines)


def kohya_name(component: str, path: str) -> str:
    """A layer's name: `lora_unet_mid_block_attentions_0_proj_in`; transformers 4 still said `text_model` in its paths."""
    return PREFIXES[component] + path.removeprefix("text_model.").replace(".", "_")


def _low_rank(models: DiffusionModels) -> Iterator[tuple[str, Tensor]]:
    import torch

    from trainables.exports.low_rank_file import low_rank_parts

    for component, part in low_rank_parts(models).items():
        for (path, name), tensor in part.tensors.items():
            shaped = tensor.flatten() if FACTORS[name] == "dora_scale" else tensor
            if FACTORS[name] == "dora_scale":  # LyCORIS' shape, [out, 1, ...]
                shaped = shaped.view(-1, *[1] * (part.tensors[path, "lora_A.weight"].dim() - 1))
            yield f"{kohya_name(component, path)}.{FACTORS[name]}", shaped
        for path in part.paths:
            yield f"{kohya_name(component, path)}.alpha", torch.tensor(float(part.rank))


def _differences(models: DiffusionModels, strategy: Strategy) -> Iterator[tuple[str, Tensor]]:
    """Changes of all layers but those of low rank, where there are some."""
    from trainables.base_models.models import load_base
    from trainables.exports.low_rank_file import low_rank_paths
    from trainables.strategies.textual_inversion import extended_embeddings

    paths = (
        *low_rank_paths(models),
        *(f"text_encoder.{path}." for path, _ in extended_embeddings(models.text_encoder)),
    )
    if paths and all(path.startswith(paths) for path in strategy.tensors(models)):
        return
    plain, base = models.fresh(), load_base(models.base.name)
    strategy.merged(plain)
    for component in PREFIXES:
        before = dict(base.component(component).named_modules())
        for path, layer in plain.component(component).named_modules():
            if not f"{component}.{path}.".startswith(paths or ("nothing",)):
                yield from _difference(kohya_name(component, path), layer, before[path])


def _difference(name: str, layer: nn.Module, before: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What changed of a layer; both of its tensors where one did, as readers ask for the weight's."""
    from torch import nn

    if not isinstance(layer, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm):
        return
    is_norm = isinstance(layer, nn.GroupNorm | nn.LayerNorm)
    names = {"weight": "w_norm", "bias": "b_norm"} if is_norm else {"weight": "diff", "bias": "diff_b"}
    old = dict(before.named_parameters())
    changes = {key: tensor.detach() - old[key] for key, tensor in layer.named_parameters()}
    if any(bool(change.any()) for change in changes.values()):
        yield from ((f"{name}.{names[key]}", change) for key, change in changes.items())
