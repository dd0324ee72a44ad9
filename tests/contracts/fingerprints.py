"""Whether models were left as they were, to the bit."""

from __future__ import annotations

import hashlib

from trainables.base_models.models import DiffusionModels


def fingerprint(models: DiffusionModels) -> str:
    """Of every tensor's name, place and bits, and of what trains; of the configurations and the words that are known."""
    digest = hashlib.sha256(repr(sorted(models.tokenizer.get_vocab().items())).encode())
    for module in models.components().values():
        digest.update(repr(module.config).encode())
        for name, tensor in module.state_dict(keep_vars=True).items():
            about = (name, tensor.data_ptr(), tensor.stride(), tensor.dtype, tensor.requires_grad)
            digest.update(repr(about).encode())
            digest.update(tensor.detach().float().numpy().tobytes())
    return digest.hexdigest()
