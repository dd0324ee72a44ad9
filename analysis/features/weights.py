"""Reading weights without running code that a file brings along."""

from __future__ import annotations

import hashlib
import pickle
import types
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from analysis.files import whole_file

ALLOWED = frozenset(
    {
        ("collections", "OrderedDict"),
        ("builtins", "set"),
        ("__builtin__", "set"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch", "FloatStorage"),
        ("torch", "LongStorage"),
        ("torch.nn.backends.thnn", "_get_thnn_function_backend"),
        ("torch.nn.modules.activation", "ReLU"),
        ("torch.nn.modules.batchnorm", "BatchNorm2d"),
        ("torch.nn.modules.container", "Sequential"),
        ("torch.nn.modules.conv", "Conv2d"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch.nn.modules.pooling", "AvgPool2d"),
        ("torch.nn.modules.pooling", "MaxPool2d"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torchxrayvision.models", "DenseNet"),
        ("torchxrayvision.models", "_DenseBlock"),
        ("torchxrayvision.models", "_DenseLayer"),
        ("torchxrayvision.models", "_Transition"),
    }
)
"""Everything that a pickled torchxrayvision DenseNet, or a state dict, consists of."""


class AllowedUnpickler(pickle.Unpickler):
    """Builds only what is on the list above.

    `weights_only=True` will not do: torchxrayvision publishes whole modules in the format of torch before 1.6, and that
    reader refuses their module records whatever the allowed globals are.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name, if it is allowed."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is neither part of a DenseNet nor of a state dict")
        return super().find_class(module, name)


def _allowed_pickle() -> Any:
    """A stand-in for the pickle module, as `torch.load` takes it."""

    def load(file: Any, **options: Any) -> Any:
        return AllowedUnpickler(file, **options).load()

    module: Any = types.ModuleType("allowed_pickle")
    module.Unpickler, module.load = AllowedUnpickler, load
    return module


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors, or from a `.pt` or `.pth` that holds a torchxrayvision module or a state dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something that is not on the list of allowed classes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`weights` must be a file, but got {str(path)!r}. Check the path.")
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"`weights` must be safetensors or its publisher's own .pt or .pth, but got {str(path)!r}: {error}. "
            "Fetch the file again, from its publisher."
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    _refuse_script(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the classes' source text has changed since; tensors are checked by name
        content = torch.load(path, map_location="cpu", pickle_module=_allowed_pickle(), weights_only=False)
    if isinstance(content, nn.Module):
        for module in content.modules():  # modules from before torch 1.6 do not have it
            module.__dict__.setdefault("_non_persistent_buffers_set", set())
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise pickle.UnpicklingError(f"a {type(content).__name__} is neither a module nor a state dict")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _refuse_script(path: Path) -> None:
    """`torch.load` hands an archive of TorchScript on to `torch.jit.load`, which runs what is in it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith(("constants.pkl", ".py")) for name in archive.namelist()):
                raise pickle.UnpicklingError("an archive of TorchScript is a program")


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without thresholds and counters, which no feature depends on and not every file has."""
    return {name: t for name, t in state.items() if name != "op_threshs" and not name.endswith("num_batches_tracked")}


def write_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    contiguous = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    with whole_file(path) as file:
        file.write(save(contiguous))


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Hex digest of names, types, shapes and values; the same for every file format that held them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_exactly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network, and refuse a file that does not fit it.

    Args:
        network: filled in place.
        state: tensors by name.
        path: the file that they are from, for messages.

    Raises:
        ValueError: a tensor is missing, left over or of another shape.
    """
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"`weights` must fit {type(network).__name__} as configured, but got {str(path)!r}: {error}. "
            "Give the file that belongs to this extractor."
        ) from error
