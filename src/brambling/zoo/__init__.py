"""Networks that come with the package, and test images to recheck their accuracy."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brambling.errors import ConfigError, FileProblem
from brambling.network import Network
from brambling.quant.data import find, pair, read_cifar, read_images, read_labels

__all__ = [
    "Entry",
    "dataset_of",
    "entries",
    "evaluation_set",
    "load",
    "names",
    "read_test_set",
]

FOLDER = Path(str(files(__name__)))
SUFFIX = ".safetensors"
DATASETS = {"MNIST": 28 * 28, "CIFAR-10": 32 * 32 * 3}  #: Elements of an image.


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a network of the zoo.

    ``accuracy`` is the fraction found of ``images`` test images; ``weight_bits`` what its weights
    take on chip.
    """

    name: str
    dataset: str
    accuracy: float
    images: int
    weight_bits: int


def names() -> tuple[str, ...]:
    """Names of the networks, smallest file first."""
    paths = sorted(FOLDER.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_size)
    return tuple(path.name.removesuffix(SUFFIX) for path in paths)


def checked(path: Path) -> Path:
    """Return ``path`` if its contents have the recorded checksum."""
    sums = {}
    for line in (FOLDER / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    name = path.relative_to(FOLDER).as_posix()
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read ({error.strerror})") from None
    if sums.get(name) != found:
        raise FileProblem(
            f"{path}: sha256 must be {sums.get(name, 'recorded in SHA256SUMS')}, not {found}; "
            "reinstall brambling"
        )
    return path


def load(name: str) -> Network:
    """Return the network of that name, after checking its checksum."""
    if name not in names():
        raise ConfigError(f"the zoo has {', '.join(names())}, not {name!r}")
    return Network.load(checked(FOLDER / f"{name}{SUFFIX}"))


def entries() -> tuple[Entry, ...]:
    """Describe every network."""
    rows = []
    for name in names():
        network = load(name)
        rows.append(
            Entry(
                name,
                str(network.provenance["dataset"]),
                float(network.provenance["accuracy"]),
                int(network.provenance["images"]),
                network.weight_bits,
            )
        )
    return tuple(rows)


def dataset_of(network: Network) -> str:
    """Name of the data set whose images ``network`` takes: the recorded one, or by their size."""
    recorded = network.provenance.get("dataset")
    if recorded in DATASETS:
        return str(recorded)
    for name, size in DATASETS.items():
        if network.input.size == size:
            return name
    raise ConfigError(
        f"{network.name} takes {network.input}, which are no images of {' or '.join(DATASETS)}: "
        "give --images"
    )


def evaluation_set(dataset: str = "MNIST") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the test images ``(n, rows, columns, …)`` and labels ``(n,)`` of the package.

    All 10,000 of MNIST, the first 200 of CIFAR-10.
    """
    if dataset not in DATASETS:
        raise ConfigError(
            f"test images of {' and '.join(DATASETS)} come with the package, not of {dataset!r}"
        )
    if dataset == "CIFAR-10":
        return read_cifar(checked(FOLDER / "cifar10" / "test_sample.bin.xz"))
    folder = FOLDER / "mnist"
    return (
        read_images(checked(folder / "t10k-images-idx3-ubyte.gz")),
        read_labels(checked(folder / "t10k-labels-idx1-ubyte.gz")),
    )


def read_test_set(dataset: str, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read all test images and labels of a data set from ``folder``, as :func:`evaluation_set`."""
    if dataset == "CIFAR-10":
        return read_cifar(find(folder, "test_batch.bin", ".xz", "CIFAR-10's test_batch.bin"))
    return pair(folder, "t10k")
