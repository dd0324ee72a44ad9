"""Single files that are written have the names of the published code, which the tests' own writer knows by other means."""

from __future__ import annotations

import pytest
import single_file

from trainables.base_models.sd15 import sd15_on_meta
from trainables.exports.original_names import original_tensors, unet_name, vae_name


@pytest.mark.slow
def test_stable_diffusion_15_has_the_names_of_the_published_code() -> None:
    models = sd15_on_meta()
    attends = [False, True, True, True]
    for name in models.unet.state_dict():
        assert unet_name(name, 2, attends) == single_file._unet(name)
    for name in models.vae.state_dict():
        assert vae_name(name, 4) == single_file._vae(name)
    tensors = original_tensors(models)
    assert len(tensors) == sum(len(part.state_dict()) for part in models.components().values())
    assert {
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.decoder.up.0.block.2.norm2.bias",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    } <= tensors.keys()
    assert tensors["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
