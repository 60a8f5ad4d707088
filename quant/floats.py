"""Float models: safetensors with the name of their architecture, in which no code runs.

Networks of one's own come from a function that the user names: :func:`build_float`.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from brambling.errors import ConfigError, FileProblem
from brambling.files import write_atomically
from brambling.network import canonical
from brambling.quant.models import cifar_cnn, lenet5

__all__ = ["ARCHITECTURES", "FloatModel", "build_float", "load_float", "save_float"]

VERSION = "1"
#: Float models that a file may name, and the data set that each is for.
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lenet5": (lambda: lenet5(None), "MNIST"),
    "cifar-cnn": (cifar_cnn, "CIFAR-10"),
}


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A trained float model; ``facts`` say who made it and how: ``accuracy``, ``seed``, …."""

    architecture: str
    dataset: str
    module: nn.Module
    facts: Mapping[str, Any]


def save_float(path: Path, module: nn.Module, architecture: str, facts: Mapping[str, Any]) -> None:
    """Write a model of one of :data:`ARCHITECTURES`; equal models give equal bytes."""
    tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
    text = json.dumps(dict(facts), sort_keys=True)
    header = {"brambling-float": VERSION, "architecture": architecture, "facts": text}
    write_atomically(path, canonical(save(tensors, header)))


def load_float(path: Path) -> FloatModel:
    """Read what :func:`save_float` wrote; :class:`FileProblem` for anything else."""
    tensors, header = read_tensors(path)
    version, architecture = header.get("brambling-float"), header.get("architecture")
    if version != VERSION:
        raise FileProblem(f"{path}: float model version must be {VERSION!r}, not {version!r}")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise FileProblem(f"{path}: architecture must be one of {known}, not {architecture!r}")
    make, dataset = ARCHITECTURES[architecture]
    module = make()
    fill(module, tensors, path, architecture)
    try:
        facts = json.loads(header.get("facts", "{}"))
    except ValueError as error:
        raise FileProblem(f"{path}: metadata is damaged ({error})") from None
    return FloatModel(architecture, dataset, module.eval(), facts)


def build_float(name: str, weights: Path, dataset: str) -> FloatModel:
    """Call ``name``, ``"package.module:function"``, and give what it returns trained weights.

    Parameters
    ----------
    name
        Of a function without arguments, or of a class, that makes a module which takes pixels,
        uint8 ``(n, channels, rows, columns)``, and returns logits ``(n, classes)``.
    weights
        Safetensors file with the module's ``state_dict``.
    dataset
        ``"MNIST"`` or ``"CIFAR-10"``.

    Raises
    ------
    ConfigError, FileProblem
        In one line, whatever it is that does not work.
    """
    module = made_by(name)
    attribute = name.partition(":")[2]
    fill(module, read_tensors(weights)[0], weights, name)
    module.eval()
    shape = (2, 1, 28, 28) if dataset == "MNIST" else (2, 3, 32, 32)
    try:
        with torch.no_grad():
            logits = module(torch.zeros(shape, dtype=torch.uint8))
    except Exception as error:
        raise ConfigError(f"{name}: fails on pixels {shape} ({first_line(error)})") from None
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2:
        raise ConfigError(f"{name}: must give logits (n, classes) of pixels {shape}")
    return FloatModel(attribute, dataset, module, {})


def made_by(name: str) -> nn.Module:
    """Call ``"package.module:function"``, which makes a module."""
    where, _, attribute = name.partition(":")
    try:
        module = getattr(importlib.import_module(where), attribute)()
    except Exception as error:  # It is the user's code: anything may come.
        raise ConfigError(f"{name}: cannot be called ({first_line(error)})") from None
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{name}: must return a torch.nn.Module, not {type(module).__name__}")
    return module


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, and its metadata."""
    if not path.is_file():
        raise FileProblem(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FileProblem(f"{path}: not a whole safetensors file ({error})") from None


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Give ``module``, which is called ``name``, the tensors of a file: all, in its shapes."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise FileProblem(
                f"{path}: tensor {key} must be {expected.get(key, 'absent')} for {name}, "
                f"not {found.get(key, 'absent')}"
            )
    module.load_state_dict(dict(tensors))
