"""What a training depends on, and the frame in which it runs: :class:`Task`, :func:`resumable`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from brambling.errors import ConfigError, FileProblem
from brambling.network import Network
from brambling.quant.checkpoint import Training, go_back, save_training
from brambling.quant.data import Cifar10, Mnist

__all__ = ["AnyRecipe", "Task", "bars", "resumable"]


class AnyRecipe(Protocol):
    """Hyper-parameters: a frozen dataclass of what JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def epochs(self) -> int: ...


R = TypeVar("R", bound=AnyRecipe)


@dataclass(frozen=True, eq=False)
class Task(Generic[R]):
    """All that the course of a training depends on."""

    name: str
    recipe: R
    seed: int
    images: NDArray[np.uint8]  #: ``(n, rows, columns)``, or with channels behind.
    labels: NDArray[np.uint8]  #: ``(n,)``
    start: Network | None = None  #: Where an earlier round of training ended.

    @classmethod
    def of(
        cls,
        name: str,
        recipes: Mapping[str, R],
        data: Mnist | Cifar10,
        *,
        seed: int,
        epochs: int | None,
        hold_out: int,
    ) -> Self:
        """Task of the recipe of that name, without the last ``hold_out`` training images.

        ``epochs`` are those of the recipe where None.
        """
        if name not in recipes:
            raise ConfigError(f"recipe must be one of {', '.join(recipes)}, not {name!r}")
        recipe = recipes[name] if epochs is None else replace(recipes[name], epochs=epochs)
        if recipe.epochs < 1:
            raise ConfigError(f"epochs must be at least 1, not {epochs}")
        count = len(data.train_labels)
        if not 0 <= hold_out < count:
            raise ConfigError(f"hold_out must be 0 to {count - 1}, not {hold_out}")
        learnt = slice(count - hold_out)
        return cls(name, recipe, seed, data.train_images[learnt], data.train_labels[learnt])

    @property
    def truth(self) -> Tensor:
        """Labels, int64 ``(n,)``."""
        return torch.from_numpy(self.labels.astype(np.int64))

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint and the training that goes on from it must have in common."""
        digest = hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()
        recipe = json.loads(json.dumps(asdict(self.recipe)))  # as it comes back from a file
        start = {} if self.start is None else {"start": self.start.digest}
        return start | {"name": self.name, "seed": self.seed, "recipe": recipe, "data": digest}


def bars(console: Console | None) -> Progress:
    """Progress bars with a column of free text."""
    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = console or Console(stderr=True)
    return Progress(*columns, TextColumn("{task.fields[text]}"), console=console)


@contextmanager
def resumable(
    training: Training, epochs: int, checkpoint: Path, resume: bool, console: Console
) -> Iterator[None]:
    """Begin a training at its checkpoint where ``resume``; say how to go on where interrupted."""
    if resume:
        go_back(training, checkpoint)
    elif checkpoint.exists():
        raise FileProblem(
            f"{checkpoint}: an interrupted training left this; add --resume, or delete it"
        )
    save_training(training, checkpoint)  # finds now, not after an hour, that it cannot be written
    try:
        yield
    except KeyboardInterrupt:
        console.print(
            f"interrupted in epoch {training.epoch + 1} of {epochs}; the same command with "
            f"--resume goes on from its beginning: {checkpoint}"
        )
        raise
