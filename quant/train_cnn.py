"""Training of the zoo's convolutional networks, on one CPU thread: MNIST and CIFAR-10.

Weights and activations are rounded from the first step on, by the straight-through estimators of
:mod:`brambling.quant.quantiser`; the LeNet-5 begin as a float network whose steps are then chosen
from data (:func:`brambling.quant.models.calibrate`). What else is done:

- MNIST's images are distorted as for the dense networks; CIFAR-10's are shifted and mirrored, and
  where the network is large enough to learn them by heart a square is cut out.
- The rate rises, where the recipe says so, and falls along a cosine.
- Where the recipe says so, convolutions compute in bfloat16 and add in float32: that halves the
  time on processors with instructions for it, and is many times slower on others. Batch-norm's mean
  and variance are computed anew at the end with the final weights, in float32.

Randomness is that of :mod:`brambling.quant.seeds`. Test images are used once, after the last epoch.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from brambling.network import Network
from brambling.quant import models
from brambling.quant.augment import CHUNK, crop, cut_out, distort, grey, pad
from brambling.quant.checkpoint import VERSION, read, save_training, write
from brambling.quant.data import Cifar10, Mnist
from brambling.quant.export import evaluate
from brambling.quant.floats import save_float
from brambling.quant.graph import export_graph
from brambling.quant.layers import QuantConv2d, QuantLinear
from brambling.quant.models import bind_biases, calibrate
from brambling.quant.restart import begin_as
from brambling.quant.seeds import generator, reproducible
from brambling.quant.task import Task, bars, resumable
from brambling.quant.train import Golden

__all__ = ["FLOATS", "RECIPES", "Recipe", "train", "train_floats"]

SHOWN = 2000  #: Last training images, whose accuracy the progress shows.
SAMPLES = 500  #: Images that steps are chosen from.
SETTLING = 20000  #: Images of CIFAR-10 that batch-norm is settled on.
MOMENTUM = 0.9
DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
CLASSES = {
    "mnist": tuple("0123456789"),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
NORMALISATION = "uint8 pixels, row by row, channels innermost; no scaling"


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one network.

    Parameters
    ----------
    zoo
        Name of the network.
    data
        ``"mnist"`` or ``"cifar10"``.
    model
        Builder of the network, a name in :mod:`brambling.quant.models`, and its arguments.
    epochs, batch, rate
        Passes over the images, images a step, and the optimiser's highest learning rate.
    optimiser
        ``"adam"``, or ``"sgd"``: with Nesterov's momentum of 0.9.
    warm, least
        Share of the steps in which the rate rises from 0 to ``rate``; least rate.
    tail, tail_rate
        Last of the epochs, in which the rate falls once more, from ``tail_rate`` (Loshchilov and
        Hutter 2017); the shares of ``warm`` are of the epochs before.
    decay
        Of weights, with ``"sgd"``.
    smoothing
        Share of each label that is spread over all classes, 0 to 1.
    shift, cut
        Of colour images: largest shift, and size of the square that is cut out, in pixels.
    strength, sets
        Of grey images: share of the full distortion, and distorted copies.
    floats
        Recipe of the float network that this one begins as; empty: it begins untrained.
    bfloat16
        Whether products are computed in bfloat16.
    """

    zoo: str
    data: str
    model: tuple[Any, ...]
    epochs: int
    batch: int = 128
    rate: float = 1e-2
    optimiser: str = "adam"
    warm: float = 0.0
    least: float = 0.0
    tail: int = 0
    tail_rate: float = 0.0
    decay: float = 0.0
    smoothing: float = 0.0
    shift: int = 0
    cut: int = 0
    strength: float = 1.0
    sets: int = 10
    floats: str = ""
    bfloat16: bool = False

    def build(self, seed: int) -> nn.Sequential:
        """Untrained network; its weights depend on the seed only."""
        torch.manual_seed(generator(seed, "student", 0).initial_seed())
        name, *arguments = self.model
        model: nn.Sequential = getattr(models, name)(*arguments)
        for value in model.parameters():
            if value.dim() == 4 and (self.bfloat16 or self.data == "cifar10"):  # faster
                value.data = value.data.contiguous(memory_format=torch.channels_last)
        return model

    def rate_at(self, done: float) -> float:
        """Learning rate when a share ``done`` of the steps is done, 0 to 1."""
        main = max(0.0, 1 - self.tail / self.epochs)
        if done >= main and self.tail:
            return max(self.least, falling(self.tail_rate, (done - main) / (1 - main)))
        done /= main
        if done < self.warm:
            return max(self.least, self.rate * done / self.warm)
        return max(self.least, falling(self.rate, (done - self.warm) / (1 - self.warm)))


def falling(rate: float, done: float) -> float:
    """Rate on its way to 0 along half a cosine, of which a share ``done`` is done."""
    return rate * (1 + cos(pi * done)) / 2


RECIPES = {
    "cifar10-cnv": Recipe("cnv-w1a1", "cifar10", ("cnv",), 10, batch=100, shift=2),
    "cifar10-resnet8": Recipe(
        zoo="resnet8-w4a4",
        data="cifar10",
        model=("resnet8",),
        epochs=30,
        rate=0.1,
        optimiser="sgd",
        warm=0.15,
        least=1e-4,
        tail=6,
        tail_rate=0.03,
        decay=3e-4,
        shift=3,
    ),
    "cifar10-brambling": Recipe(
        zoo="brambling-cifar-w4a4",
        data="cifar10",
        model=("resnet_b",),
        epochs=13,
        rate=0.1,
        optimiser="sgd",
        warm=0.2,
        least=1e-4,
        decay=5e-4,
        smoothing=0.05,
        shift=4,
        cut=8,
    ),
    "mnist-lenet5-w8": Recipe(
        zoo="lenet5-w8a8",
        data="mnist",
        model=("lenet5", 8),
        epochs=3,
        rate=3e-4,
        floats="mnist-lenet5-float",
    ),
    "mnist-lenet5-w4": Recipe(
        zoo="lenet5-w4a4",
        data="mnist",
        model=("lenet5", 4),
        epochs=10,
        rate=1e-3,
        floats="mnist-lenet5-float",
    ),
    "mnist-cnn-w1a2": Recipe("mnist-cnn-w1a2", "mnist", ("mnist_cnn",), 14, bfloat16=True),
}

#: Of float networks, for :func:`train_floats`.
FLOATS = {
    "mnist-lenet5-float": Recipe("lenet5", "mnist", ("lenet5", None), 16, rate=2e-3),
    "cifar10-cnn-float": Recipe(
        "cifar-cnn", "cifar10", ("cifar_cnn",), 12, rate=2e-3, warm=0.1, least=1e-4, shift=3
    ),
}


# Images -------------------------------------------------------------------------------------------


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """Images, grey or colour, as uint8 ``(n, channels, rows, columns)``."""
    if images.ndim == 3:
        return torch.tensor(images).unsqueeze(1)
    return torch.tensor(images).permute(0, 3, 1, 2)


class GreyLessons:
    """Distorted copies of a task's grey images, each made when it is first needed."""

    def __init__(self, task: Task[Recipe]) -> None:
        self._task = task
        self._made: dict[int, Tensor] = {}

    def _copy(self, index: int) -> Tensor:
        if index not in self._made:
            task, source = self._task, generator(self._task.seed, "set", index)
            parts = []
            for start in range(0, len(task.images), CHUNK):
                images = grey(task.images[start : start + CHUNK])
                x = distort(images, task.recipe.strength, source)
                parts.append((255 * x).round().to(torch.uint8))
            self._made[index] = torch.cat(parts)
        return self._made[index]

    def batch(self, epoch: int, rows: Tensor, source: torch.Generator) -> Tensor:
        """Return changed images of those rows, uint8 ``(n, 1, 28, 28)``."""
        return self._copy(epoch % self._task.recipe.sets)[rows]

    def settling(self) -> Iterator[Tensor]:
        """Images that batch-norm is settled on, in parts."""
        yield from self._copy(0).split(CHUNK)


class ColourLessons:
    """Shifted and mirrored copies of a task's colour images, made anew for each batch."""

    def __init__(self, task: Task[Recipe]) -> None:
        self._task = task
        self._padded = pad(task.images)

    def batch(self, epoch: int, rows: Tensor, source: torch.Generator) -> Tensor:
        """Return changed images of those rows, uint8 ``(n, 3, 32, 32)``."""
        recipe = self._task.recipe
        x = crop(self._padded, rows, recipe.shift, source)
        return cut_out(x, recipe.cut, source) if recipe.cut else x

    def settling(self) -> Iterator[Tensor]:
        """Images that batch-norm is settled on, in parts."""
        source = generator(self._task.seed, "settle", 0)
        order = torch.randperm(len(self._task.images), generator=source)
        for rows in order[:SETTLING].split(CHUNK):
            yield crop(self._padded, rows, self._task.recipe.shift, source)


Lessons = GreyLessons | ColourLessons


# Student ------------------------------------------------------------------------------------------


class Student:
    """The network in training and its optimiser, between two epochs."""

    def __init__(self, task: Task[Recipe]) -> None:
        self.task = task
        self.epoch = 0  #: Epochs done.
        self.model = task.recipe.build(task.seed)
        if task.start is not None:
            begin_as(self.model, task.start, pixels(task.images[:SAMPLES]))
        self.optimiser = optimiser_of(self.model, task.recipe)

    def describe(self) -> dict[str, Any]:
        """Return what a training that goes on from a checkpoint must have in common with it."""
        return self.task.describe()

    def begin(self, floats: dict[str, Tensor]) -> None:
        """Take over the float network's weights, and choose the steps from data."""
        self.model.load_state_dict(floats, strict=False)
        calibrate(self.model, pixels(self.task.images[:SAMPLES]))

    def learn(self, lessons: Lessons) -> float:
        """Go through the images once; mean loss."""
        task, recipe = self.task, self.task.recipe
        source = generator(task.seed, "order", self.epoch)
        batches = torch.randperm(len(task.labels), generator=source).split(recipe.batch)
        truth, total = task.truth, 0.0
        self.model.train()
        for index, rows in enumerate(batches):
            rate = recipe.rate_at((self.epoch + index / len(batches)) / recipe.epochs)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            x = lessons.batch(self.epoch, rows, source)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                logits = self.model(x)
            smoothing = recipe.smoothing
            loss = functional.cross_entropy(logits.float(), truth[rows], label_smoothing=smoothing)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            for module in self.model.modules():
                if isinstance(module, QuantConv2d | QuantLinear):
                    module.clip()
            total += loss.item() * len(rows)
        self.epoch += 1
        return total / len(truth)


def optimiser_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam for one-bit weights, else stochastic gradient descent; only weights decay."""
    if recipe.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), fused=True)
    layers = (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    weights = [layer.weight for layer in layers]
    known = {id(weight) for weight in weights}
    others = [value for value in model.parameters() if id(value) not in known]
    groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": others}]
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=MOMENTUM, nesterov=True)


@torch.no_grad()
def settle(model: nn.Module, lessons: Lessons) -> None:
    """Compute batch-norm's means and variances anew with the weights as they are, in float32."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    if norms:
        model.train()
        for x in lessons.settling():
            model(x)
    bind_biases(model)
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Share of images that the float model tells, 0 to 1; in float32."""
    model.eval()
    parts = [model(x).argmax(dim=1) for x in pixels(images).split(CHUNK)]
    return float((torch.cat(parts).numpy() == labels).mean())


# The verb -----------------------------------------------------------------------------------------


def read_data(recipe: str, folder: Path) -> Mnist | Cifar10:
    """Images for the recipe of that name; MNIST's for an unknown name, which is refused later."""
    known = (RECIPES | FLOATS).get(recipe)
    return Cifar10.read(folder) if known and known.data == "cifar10" else Mnist.read(folder)


def train(
    recipe: str,
    data: Path,
    *,
    seed: int = 1,
    epochs: int | None = None,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    hold_out: int = 0,
    start: Network | None = None,
    golden: Golden = evaluate,
) -> Network:
    """Train one of :data:`RECIPES`, export it, measure it, and save it at ``out``.

    The arguments are those of :func:`brambling.quant.train.train`; ``data`` holds MNIST's files or
    CIFAR-10's, as the recipe needs. A float network that a recipe begins as stays beside ``out``.
    The training begins as ``start``, a network that an earlier round of the same recipe made: see
    :func:`brambling.quant.restart.begin_as`, which refuses others.
    """
    images = read_data(recipe, data)
    task = Task.of(recipe, RECIPES, images, seed=seed, epochs=epochs, hold_out=hold_out)
    task = replace(task, start=start)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    with reproducible(), bars(console) as progress:
        model = teach(task, images, checkpoint, resume, progress)
        network = finish(model, task, images, golden)
    network.save(out)
    checkpoint.unlink(missing_ok=True)
    return network


def train_floats(
    recipe: str,
    data: Path,
    *,
    seed: int = 1,
    epochs: int | None = None,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
) -> float:
    """Train one of :data:`FLOATS` and save it at ``out``; return the share of test images told.

    ``brambling precision`` takes the file, and :func:`brambling.quant.floats.load_float` reads it.
    """
    images = read_data(recipe, data)
    task = Task.of(recipe, FLOATS, images, seed=seed, epochs=epochs, hold_out=0)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    with reproducible(), bars(console) as progress:
        model = teach(task, images, checkpoint, resume, progress)
    share = accuracy(model, images.test_images, images.test_labels)
    facts = provenance(task) | {"images": len(images.test_images), "accuracy": share}
    save_float(out, model, task.recipe.zoo, facts)
    checkpoint.unlink(missing_ok=True)
    return share


def teach(
    task: Task[Recipe], data: Mnist | Cifar10, checkpoint: Path, resume: bool, progress: Progress
) -> nn.Sequential:
    """Train to the last epoch, with a checkpoint after each, and settle; in evaluation."""
    student, recipe = Student(task), task.recipe
    lessons = GreyLessons(task) if recipe.data == "mnist" else ColourLessons(task)
    with resumable(student, recipe.epochs, checkpoint, resume, progress.console):
        if recipe.floats and not student.epoch:
            student.begin(find_floats(task, data, checkpoint.parent, progress))
        last = slice(-SHOWN, None)
        bar = progress.add_task(task.name, total=recipe.epochs, completed=student.epoch, text="")
        while student.epoch < recipe.epochs:
            loss = student.learn(lessons)
            save_training(student, checkpoint)
            share = accuracy(student.model, data.train_images[last], data.train_labels[last])
            text = f"loss {loss:.3f}, {share:.2%} of the last {SHOWN}"
            progress.update(bar, advance=1, text=text)
    settle(student.model, lessons)
    return student.model


def find_floats(
    task: Task[Recipe], data: Mnist | Cifar10, folder: Path, progress: Progress
) -> dict[str, Tensor]:
    """Read the weights of the task's float network from ``folder``, or train it there."""
    floats = replace(task, name=task.recipe.floats, recipe=FLOATS[task.recipe.floats])
    facts = json.dumps([VERSION, floats.describe()], sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
    path = folder / f"{floats.name}-{digest}.safetensors"
    if not path.is_file():
        checkpoint = path.with_suffix(".checkpoint.safetensors")
        model = teach(floats, data, checkpoint, checkpoint.is_file(), progress)
        write(path, model.state_dict(), floats.describe())
        checkpoint.unlink()
    return read(path)[0]


def finish(
    model: nn.Sequential, task: Task[Recipe], data: Mnist | Cifar10, golden: Golden
) -> Network:
    """Export, and measure both networks on the test images."""
    test, names = data.test_images, CLASSES[task.recipe.data]
    shape = (*test.shape[1:3], pixels(test[:1]).shape[1])
    network = export_graph(
        model, task.recipe.zoo, shape, classes=names, normalisation=NORMALISATION
    )
    edges = golden(network, test.reshape(len(test), *shape))
    classes = edges[network.layers[-1].name]
    facts = provenance(task) | {
        "images": len(test),
        "accuracy": float((classes.reshape(len(test)) == data.test_labels).mean()),
        "float_accuracy": accuracy(model, test, data.test_labels),
    }
    return replace(network, provenance=facts)


def provenance(task: Task[Recipe]) -> dict[str, Any]:
    """Return how to make again what a task makes."""
    recipe = task.recipe
    script = f"brambling train {task.name} --data DIR --seed {task.seed} --epochs {recipe.epochs}"
    before = {}
    if task.start is not None:
        script += " --from START"
        before = {"start": {**task.start.provenance, "sha256": task.start.digest}}
    return before | {
        "dataset": DATASETS[recipe.data],
        "script": script,
        "seed": task.seed,
        "epochs": recipe.epochs,
        "torch": torch.__version__,
    }
