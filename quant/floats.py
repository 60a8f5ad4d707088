"""Files of float models: safetensors with the name of their architecture, in which no code runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from brambling.errors import FileProblem
from brambling.files import write_atomically
from brambling.network import canonical
from brambling.quant.models import cifar_cnn, lenet5

__all__ = ["ARCHITECTURES", "FloatModel", "load_float", "save_float"]

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
    if not path.is_file():
        raise FileProblem(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise FileProblem(f"{path}: not a whole safetensors file ({error})") from None
    version, architecture = header.get("brambling-float"), header.get("architecture")
    if version != VERSION:
        raise FileProblem(f"{path}: float model version must be {VERSION!r}, not {version!r}")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise FileProblem(f"{path}: architecture must be one of {known}, not {architecture!r}")
    make, dataset = ARCHITECTURES[architecture]
    module = make()
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise FileProblem(
                f"{path}: tensor {key} must be {expected.get(key, 'absent')} for {architecture}, "
                f"not {found.get(key, 'absent')}"
            )
    module.load_state_dict(tensors)
    try:
        facts = json.loads(header.get("facts", "{}"))
    except ValueError as error:
        raise FileProblem(f"{path}: metadata is damaged ({error})") from None
    return FloatModel(architecture, dataset, module.eval(), facts)
