"""Trainings that survive an interruption: safetensors files, in which there is no code to run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from brambling.errors import ConfigError, FileProblem
from brambling.files import write_atomically

__all__ = ["VERSION", "Training", "go_back", "read", "save_training", "write"]

VERSION = "1"


class Training(Protocol):
    """A model and its optimiser, between two epochs."""

    epoch: int  #: Epochs done.

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimiser(self) -> torch.optim.Optimizer: ...

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint and the training that goes on from it must have in common."""
        ...


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, and facts as JSON in the file's header; whole or not at all."""
    whole = {key: value.contiguous() for key, value in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    write_atomically(path, save(whole, {"training": VERSION, "facts": text}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            facts, names = json.loads((file.metadata() or {})["facts"]), file.keys()
            return {name: file.get_tensor(name) for name in names}, facts
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FileProblem(f"{path}: not a whole checkpoint ({error}); delete it") from None


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose name begins with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def save_training(training: Training, path: Path) -> None:
    """Write every tensor that the next epoch depends on."""
    tensors = {f"model.{key}": value for key, value in training.model.state_dict().items()}
    for index, values in training.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in values.items()}
    write(path, tensors, training.describe() | {"epoch": training.epoch})


def go_back(training: Training, path: Path) -> None:
    """Set a training to the checkpoint at ``path``, which must be of the same training."""
    if not path.is_file():
        raise FileProblem(f"{path}: no such checkpoint to resume from; start without --resume")
    tensors, facts = read(path)
    epoch = facts.pop("epoch", 0)
    for key, value in training.describe().items():
        if facts.get(key) != value:
            raise ConfigError(
                f"{path}: was made with another {key}; use the same, or delete it and start again"
            )
    training.epoch = epoch
    training.model.load_state_dict(below(tensors, "model."))
    state = training.optimiser.state_dict()
    count = sum(len(group["params"]) for group in state["param_groups"])
    state["state"] = {
        i: values for i in range(count) if (values := below(tensors, f"optimiser.{i}."))
    }
    training.optimiser.load_state_dict(state)
