"""Whether models were left as they were, to the bit, and what of their memory others share."""

from __future__ import annotations

import hashlib

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import trained_parameters


def fingerprint(models: DiffusionModels) -> str:
    """Of every tensor's name, place and bits, and of what trains; of the configurations and the words that are known."""
    digest = hashlib.sha256(repr(sorted(models.tokenizer.get_vocab().items())).encode())
    for module in models.components().values():
        digest.update(repr(module.config).encode())
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            about = (name, tensor.data_ptr(), tensor.stride(), tensor.dtype, tensor.requires_grad)
            digest.update(repr(about).encode())
            digest.update(tensor.detach().float().numpy().tobytes())
    return digest.hexdigest()


def shares_all_but_what_trains(models: DiffusionModels, base: DiffusionModels) -> bool:
    """Whether models have the base's memory for as many of its parameters as do not train, and none of it for those that do."""
    parts = {
        name: part for name, part in models.components().items() if isinstance(part, type(base.components()[name]))
    }
    places = {parameter.data_ptr() for name in parts for parameter in base.components()[name].parameters()}
    used = {parameter.data_ptr() for part in parts.values() for parameter in part.parameters()}
    trained = {parameter.data_ptr() for _, parameter in trained_parameters(models)}
    return len(places - used) <= len(trained) and not places & trained
