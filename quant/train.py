"""Training of the zoo's networks: MNIST, one-bit weights and activations, on one CPU thread.

What is done beyond the straight-through estimator of :mod:`brambling.quant.layers`:

- *Distortion*: each epoch sees the grey images shifted, turned, scaled, sheared and elastically
  distorted (Simard, Steinkraus and Platt 2003) before they are binarised, each image by its own
  random share of the recipe's strength.
- *Distillation* (Hinton, Vinyals and Dean 2015): a small float CNN, trained first, labels the
  distorted grey images; the network learns its softened logits, and the labels.
- Adam with a cosine schedule, and rates ten times those usual for floats; at the end batch-norm's
  mean and variance are computed anew with the final weights.

Hyper-parameters were chosen without the test images: for SFC and TFC by short trainings on the
first 55,000 training images (``hold_out=5000``). At SFC's 20 epochs, rates of 0.0015, 0.005, 0.015
and 0.05 gave 95.7, 97.4, 98.1 and 98.0 % of the last 5,000, and 0.15 fell behind; temperatures of 1
to 4 and strengths of 0.5 and 1 differed by less than 0.5 points. LFC's were set by analogy.
The zoo's files come from training on all 60,000; the test images are used once, after the last
epoch, to measure and to check the export.

Randomness is that of :mod:`brambling.quant.seeds`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
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
from brambling.quant.augment import CHUNK, distort, grey
from brambling.quant.checkpoint import VERSION, read, save_training, write
from brambling.quant.data import Mnist
from brambling.quant.export import check_export, evaluate, export
from brambling.quant.layers import INK, BipolarLinear, BipolarMLP, Teacher
from brambling.quant.seeds import generator, reproducible
from brambling.quant.task import Task, bars, resumable

__all__ = ["RECIPES", "Recipe", "train"]

SHOWN = 5000  #: Last training images, whose accuracy the progress shows.
NORMALISATION = (
    "28x28 grey pixels, uint8, row by row, 0 = background, 255 = ink; no scaling: "
    f"{INK} and above is +1, below is -1"
)

Golden = Callable[[Network, NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one of the zoo's networks.

    Parameters
    ----------
    zoo
        Name of the network.
    widths
        Elements of the input, the hidden layers and the output.
    epochs, batch, rate
        Passes over the images, images a step, and Adam's first learning rate.
    strength
        Share of the full distortion, 0 to 1.
    sets
        Distorted copies of the training images, which the epochs go through in turn.
    temperature, labels
        Softening of the logits in distillation; weight of the hard labels, 0 to 1.
    teacher_epochs
        Passes over the images in training the teacher.
    """

    zoo: str
    widths: tuple[int, ...]
    epochs: int
    batch: int = 256
    rate: float = 3e-2
    strength: float = 0.5
    sets: int = 20
    temperature: float = 1.0
    labels: float = 0.1
    teacher_epochs: int = 16


RECIPES = {
    "mnist-tfc": Recipe("tfc-w1a1", (784, 64, 64, 64, 10), 120, sets=10),
    "mnist-sfc": Recipe("sfc-w1a1", (784, 256, 256, 256, 10), 80),
    "mnist-lfc": Recipe("lfc-w1a1", (784, 1024, 1024, 1024, 10), 60, rate=1.5e-2, strength=0.75),
}


# Images -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lesson:
    """One distorted set: packed bits ``(n, 98)``, and the teacher's logits, float16 ``(n, 10)``."""

    bits: NDArray[np.uint8]
    logits: Tensor

    @classmethod
    def make(
        cls, teacher: Teacher, images: NDArray[np.uint8], strength: float, source: torch.Generator
    ) -> "Lesson":
        bits, logits = [], []
        for start in range(0, len(images), CHUNK):
            x = distort(grey(images[start : start + CHUNK]), strength, source)
            logits.append(ask(teacher, x).half())
            ink = (255 * x).round() >= INK
            bits.append(np.packbits(ink.flatten(1).numpy(), axis=1))
        return cls(np.concatenate(bits), torch.cat(logits))

    def inputs(self, rows: Tensor) -> Tensor:
        """Binarised pixels, float ``(n, 784)``, -1 and +1."""
        bits = np.unpackbits(self.bits[rows.numpy()], axis=1, count=28 * 28)
        return torch.from_numpy(bits).float().mul_(2).sub_(1)


# Teacher ------------------------------------------------------------------------------------------


@torch.no_grad()
def ask(teacher: Teacher, x: Tensor) -> Tensor:
    """Logits of the teacher, float ``(n, 10)``."""
    with torch.autocast("cpu", torch.bfloat16):
        return teacher(x).float()


def new_teacher(seed: int) -> Teacher:
    """Untrained teacher; its weights and its dropout depend on the seed only."""
    torch.manual_seed(generator(seed, "teacher", 0).initial_seed())
    return Teacher()


def teach_teacher(
    model: Teacher, images: NDArray[np.uint8], labels: Tensor, epochs: int, seed: int
) -> Iterator[int]:
    """Train the teacher on distorted images and their labels; yields after each epoch."""
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = epochs * -(-len(images) // 256)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(epochs):
        source = generator(seed, "teacher", 1 + epoch)
        for rows in torch.randperm(len(images), generator=source).split(256):
            x = distort(grey(images[rows.numpy()]), 1.0, source)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x)
            optimiser.zero_grad()
            functional.cross_entropy(logits.float(), labels[rows]).backward()
            optimiser.step()
            schedule.step()
        yield epoch


# Student ------------------------------------------------------------------------------------------


def teacher_key(task: Task[Recipe]) -> str:
    """Name of the teacher's file: the recipes share one."""
    parts = [VERSION, task.seed, task.recipe.teacher_epochs, task.describe()["data"]]
    return "mnist-teacher-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


class Lessons:
    """Distorted sets of a task, each made when it is first needed."""

    def __init__(self, task: Task[Recipe], teacher: Teacher) -> None:
        self._task, self._teacher = task, teacher
        self._made: dict[int, Lesson] = {}

    def __getitem__(self, epoch: int) -> Lesson:
        task, index = self._task, epoch % self._task.recipe.sets
        if index not in self._made:
            source = generator(task.seed, "set", index)
            self._made[index] = Lesson.make(
                self._teacher, task.images, task.recipe.strength, source
            )
        return self._made[index]


class Student:
    """The network in training and its optimiser, between two epochs."""

    def __init__(self, task: Task[Recipe]) -> None:
        self.task = task
        self.epoch = 0  #: Epochs done.
        torch.manual_seed(generator(task.seed, "student", 0).initial_seed())
        self.model = BipolarMLP(task.recipe.widths, torch.bfloat16)
        self.optimiser = torch.optim.Adam(self.model.parameters(), fused=True)

    def describe(self) -> dict[str, Any]:
        """Return what a training that goes on from a checkpoint must have in common with it."""
        return self.task.describe()

    def learn(self, lesson: Lesson) -> float:
        """Go through the images once; mean loss."""
        task, recipe = self.task, self.task.recipe
        source = generator(task.seed, "order", self.epoch)
        batches = torch.randperm(len(task.labels), generator=source).split(recipe.batch)
        truth, total = task.truth, 0.0
        self.model.train()
        for index, rows in enumerate(batches):
            done = (self.epoch + index / len(batches)) / recipe.epochs
            self.optimiser.param_groups[0]["lr"] = recipe.rate * (1 + cos(pi * done)) / 2
            logits = self.model.logits(lesson.inputs(rows))
            loss = distillation(logits, lesson.logits[rows].float(), truth[rows], recipe)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.model.clip()
            total += loss.item() * len(rows)
        self.epoch += 1
        return total / len(truth)


def distillation(logits: Tensor, teacher: Tensor, truth: Tensor, recipe: Recipe) -> Tensor:
    """Weighted sum of the losses against the teacher's softened logits and against the labels."""
    soft = (teacher / recipe.temperature).softmax(dim=1)
    match = -(soft * (logits / recipe.temperature).log_softmax(dim=1)).sum(dim=1).mean()
    hard = functional.cross_entropy(logits, truth)
    return (1 - recipe.labels) * recipe.temperature**2 * match + recipe.labels * hard


@torch.no_grad()
def settle(model: BipolarMLP, bits: Tensor) -> None:
    """Compute batch-norm's means and variances anew over inputs of -1 and +1, ``(n, inputs)``."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches
    model.train()
    for batch in bits.split(CHUNK):
        model.sums(batch)
    model.eval()


@torch.no_grad()
def accuracy(model: BipolarMLP, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Share of images that the float model tells, 0 to 1."""
    pixels = torch.tensor(images.reshape(len(images), -1))
    return float((model.eval()(pixels).argmax(dim=1).numpy() == labels).mean())


# The verb -----------------------------------------------------------------------------------------


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
    golden: Golden = evaluate,
) -> Network:
    """Train one of :data:`RECIPES`, export it, check the export, and save it at ``out``.

    Until the training is finished, a checkpoint of the last whole epoch lies beside ``out``; the
    teacher stays there for the other recipes.

    Parameters
    ----------
    data
        Folder with MNIST's four idx files, plain or gzipped.
    epochs
        As in the recipe where None.
    resume
        Go on from the checkpoint, bit for bit as if there had been no interruption.
    hold_out
        Last training images that nothing learns from, to choose hyper-parameters by.
    golden
        Values at every edge of an integer network.
    """
    mnist = Mnist.read(data)
    task = Task.of(recipe, RECIPES, mnist, seed=seed, epochs=epochs, hold_out=hold_out)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    with reproducible(), bars(console) as progress:
        student = Student(task)
        with resumable(student, task.recipe.epochs, checkpoint, resume, progress.console):
            lessons = Lessons(task, find_teacher(task, out.parent, progress))
            learn(student, lessons, mnist, checkpoint, progress)
        network = finish(student, lessons, mnist, golden)
    network.save(out)
    checkpoint.unlink(missing_ok=True)
    return network


def find_teacher(task: Task[Recipe], folder: Path, progress: Progress) -> Teacher:
    """Read the teacher of this task from ``folder``, or train it and leave it there."""
    path, teacher = folder / f"{teacher_key(task)}.safetensors", new_teacher(task.seed)
    if path.is_file():
        teacher.load_state_dict(read(path)[0])
        return teacher.eval()
    epochs = task.recipe.teacher_epochs
    bar = progress.add_task("teacher", total=epochs, text="")
    for _ in teach_teacher(teacher, task.images, task.truth, epochs, task.seed):
        progress.advance(bar)
    write(path, teacher.state_dict(), {})
    return teacher.eval()


def learn(
    student: Student, lessons: Lessons, mnist: Mnist, checkpoint: Path, progress: Progress
) -> None:
    """Train the student to its last epoch, with a checkpoint after each."""
    task, recipe = student.task, student.task.recipe
    held = len(mnist.train_labels) - len(task.labels)
    last = slice(-(held or SHOWN), None)
    kind = "held out" if held else "seen"
    bar = progress.add_task(task.name, total=recipe.epochs, completed=student.epoch, text="")
    while student.epoch < recipe.epochs:
        loss = student.learn(lessons[student.epoch])
        save_training(student, checkpoint)
        share = accuracy(student.model, mnist.train_images[last], mnist.train_labels[last])
        progress.update(bar, advance=1, text=f"loss {loss:.3f}, {share:.2%} of {kind} images")


def finish(student: Student, lessons: Lessons, mnist: Mnist, golden: Golden) -> Network:
    """Settle batch-norm, export, check the export on the test images, and measure there."""
    model, task = student.model, student.task
    for dense in model.dense:
        assert isinstance(dense, BipolarLinear)
        dense.precision = torch.float32
    settle(model, lessons[0].inputs(torch.arange(len(task.images))))
    classes = [str(digit) for digit in range(10)]
    network = export(model, task.recipe.zoo, classes=classes, normalisation=NORMALISATION)
    images = mnist.test_images.reshape(len(mnist.test_images), -1)
    edges = golden(network, images)
    report = check_export(model, network, images, edges)
    provenance = {
        "dataset": "MNIST",
        "script": (
            f"brambling train {task.name} --data DIR --seed {task.seed} "
            f"--epochs {task.recipe.epochs}"
        ),
        "seed": task.seed,
        "epochs": task.recipe.epochs,
        "images": len(images),
        "accuracy": float((edges["argmax"] == mnist.test_labels).mean()),
        "float_ties": dict(report.ties),
        "torch": torch.__version__,
    }
    return replace(network, provenance=provenance)
