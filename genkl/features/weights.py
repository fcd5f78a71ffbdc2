"""Files of weights: tensors by name, loaded into a model that they must fit; no code runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genkl.checks import check_choice
from genkl.storage import hash_tensors


def weights_hash(module: nn.Module) -> str:
    """Hash of all parameters and buffers with their names, 16 hexadecimal digits."""
    return hash_tensors(module.state_dict(), hashlib.blake2b(digest_size=8))


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name from a file; no code in it can run.

    What training scripts wrap around a state dict is taken off: a dictionary with "state_dict" or
    "model" in it, and "module." before every name.

    Args:
        path: .safetensors, or .pth, .pt or .bin written by ``torch.save``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or one that holds more than tensors.
    """
    path = Path(path)
    check_choice("kind of weight file", path.suffix, (".safetensors", ".pth", ".pt", ".bin"))
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}; pass the path of one, or None")
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            held = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}); get it again") from error
    except Exception as error:  # pickle.UnpicklingError, and what else pickles come to
        raise ValueError(
            f"{path} holds more than tensors, or is no weight file ({first_line(error)}); save "
            "model.state_dict() alone, best as .safetensors"
        ) from error
    for wrapping in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(wrapping), Mapping):
            held = held[wrapping]
    if not isinstance(held, Mapping) or not all(isinstance(t, Tensor) for t in held.values()):
        raise ValueError(f"{path} holds no dictionary of tensors; save model.state_dict() alone")
    return {name.removeprefix("module."): tensor for name, tensor in held.items()}


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a model; every name and every shape must fit.

    Args:
        model: changed in place.
        weights: tensors by name.
        source: where they come from, for the message.

    Raises:
        ValueError: names the tensors that are missing, unexpected, or of another shape.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = first_line(str(error).partition("\n")[2])
        raise ValueError(
            f"{source} does not fit: {problem} Are these weights of this network?"
        ) from error


def load_by_position(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into a model whose parameters have the same order but other names.

    Raises:
        RuntimeError: another number of tensors, or a shape that differs.
    """
    names = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
    tensors = [t for n, t in weights.items() if not n.endswith("num_batches_tracked")]
    if len(names) != len(tensors):
        raise RuntimeError(f"the weights hold {len(tensors)} tensors, the model needs {len(names)}")
    model.load_state_dict(dict(zip(names, tensors, strict=True)))


def first_line(error: BaseException | str) -> str:
    """What an error says, in one line of at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
