"""The networks and the tokenizer of the mini base, before they are trained: the classes of Stable Diffusion 1.5, made small."""

from __future__ import annotations

import string
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NOISE_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
VOCABULARY_SIZE = 1100
MAX_TOKENS = 77
# Words of the domain get short token sequences, as common words have in CLIP's vocabulary; no picture of them is shown.
DOMAIN_WORDS = (
    "chest x-ray of a subject with no finding cardiomegaly lung opacity edema pneumothorax pleural effusion atelectasis consolidation "
    "infiltration mass nodule pneumonia emphysema fibrosis pleural thickening hernia enlarged cardiomediastinum fracture support devices "
    "radiograph frontal posteroanterior anteroposterior view male female year old patient showing"
)


def new_autoencoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder class, 0.4 M parameters, 64 px to 4 x 16 x 16."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=64,
        block_out_channels=(16, 32, 48),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
    )


def new_unet() -> UNet2DConditionModel:
    """Stable Diffusion's U-Net class at 16 x 16 latents, cross-attention on the two inner levels."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text encoder class with two layers of width 64."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=4.0,
    )
    return CLIPTextModel(config)


def train_tokenizer(captions: list[str], folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in CLIP's form from the captions and the domain's words."""
    if not (folder / "tokenizer_config.json").exists():
        marks = {"<|startoftext|>": 0, "<|endoftext|>": 1}
        seed = CLIPTokenizer(vocab=marks, merges=[], unk_token="<|endoftext|>", pad_token="<|endoftext|>")
        alphabet = [f"{character * 2} {character}" for character in string.printable if not character.isspace()]
        corpus = captions + [DOMAIN_WORDS] * (len(captions) // 4) + alphabet
        learnt = seed.train_new_from_iterator(corpus, vocab_size=VOCABULARY_SIZE, show_progress=False)
        learnt.model_max_length = MAX_TOKENS
        learnt.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
