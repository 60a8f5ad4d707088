"""Reading images and labels: the idx files of MNIST, and CIFAR-10's, packed or not. No torch."""

import gzip
import lzma
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brambling.errors import FileProblem

__all__ = ["Cifar10", "Mnist", "read_cifar", "read_idx", "read_images", "read_labels"]

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"
UNSIGNED_BYTE = 0x08  #: The only element type of MNIST's files.
SIDE = 28  #: Pixels of an MNIST image in each direction.
CLASSES = 10
IDX_FILES = "MNIST's four idx files"
COLOUR_SHAPE = (3, 32, 32)  #: Of an image in CIFAR-10's files: planes, rows, columns.
BATCHES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))  #: CIFAR-10's training images.


def read_bytes(path: Path) -> bytes:
    """Contents of a file, unpacked where they are gzip or xz: the contents tell, not the name."""
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise FileProblem(f"{path}: no such file") from None
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read ({error.strerror})") from None
    try:
        if contents.startswith(GZIP):
            return gzip.decompress(contents)
        if contents.startswith(XZ):
            return lzma.decompress(contents)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        kind = "gzip" if contents.startswith(GZIP) else "xz"
        raise FileProblem(f"{path}: not a whole {kind} file ({error}); fetch it again") from None
    return contents


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Array of an idx file of unsigned bytes, gzipped or not; read-only.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements with the last dimension fastest (LeCun, Cortes
    and Burges, "The MNIST database of handwritten digits").
    """
    contents = read_bytes(path)
    magic, rank = contents[:4], contents[3] if len(contents) > 3 else 0
    if magic[:3] != bytes([0, 0, UNSIGNED_BYTE]) or not rank:
        raise FileProblem(
            f"{path}: an idx file of bytes begins with 0x000008 and its number of dimensions, "
            f"not 0x{magic.hex()}"
        )
    start = 4 + 4 * rank
    if len(contents) < start:
        raise FileProblem(
            f"{path}: its header has {start} bytes, but the file only {len(contents)}; "
            "fetch it again"
        )
    shape = tuple(int(n) for n in np.frombuffer(contents, ">u4", rank, 4))
    if len(contents) - start != prod(shape):
        raise FileProblem(
            f"{path}: its header promises {'x'.join(map(str, shape))} bytes = {prod(shape)}, "
            f"but {len(contents) - start} follow; fetch it again"
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


def read_images(path: Path) -> NDArray[np.uint8]:
    """Images of an idx file, ``uint8 (n, rows, columns)``, 0 is background and 255 is ink."""
    images = read_idx(path)
    if images.ndim != 3:
        raise FileProblem(f"{path}: images have 3 dimensions (magic 0x00000803), not {images.ndim}")
    return images


def read_labels(path: Path, classes: int = CLASSES) -> NDArray[np.uint8]:
    """Labels of an idx file, ``uint8 (n,)``, each below ``classes``."""
    labels = read_idx(path)
    if labels.ndim != 1:
        raise FileProblem(f"{path}: labels have 1 dimension (magic 0x00000801), not {labels.ndim}")
    if labels.size and labels.max() >= classes:
        raise FileProblem(f"{path}: labels must be 0 to {classes - 1}, not {labels.max()}")
    return labels


@dataclass(frozen=True, eq=False)
class Mnist:
    """The four files of MNIST; images are ``uint8 (n, 28, 28)``, labels ``uint8 (n,)``."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]

    @classmethod
    def read(cls, folder: Path) -> "Mnist":
        """Read ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, each with or without ``.gz``."""
        return cls(*pair(folder, "train"), *pair(folder, "t10k"))


@dataclass(frozen=True, eq=False)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009); images are ``uint8 (n, 32, 32, 3)``, labels ``uint8 (n,)``.

    The last dimension of an image is red, green, blue. The classes are airplane, automobile, bird,
    cat, deer, dog, frog, horse, ship and truck, in the order of the labels.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]

    @classmethod
    def read(cls, folder: Path) -> "Cifar10":
        """Read ``data_batch_{1..5}.bin`` and ``test_batch.bin``, each with or without ``.xz``."""
        what = "CIFAR-10's six binary batches"
        parts = [read_cifar(find(folder, name, ".xz", what)) for name in BATCHES]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(images, labels, *read_cifar(find(folder, "test_batch.bin", ".xz", what)))


def read_cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``(n, 32, 32, 3)`` and labels ``(n,)`` of a binary batch, packed with xz or not.

    An image is 3073 bytes: its label, then its red, green and blue planes row by row.
    """
    contents, size = read_bytes(path), 1 + prod(COLOUR_SHAPE)
    if not contents or len(contents) % size:
        raise FileProblem(
            f"{path}: has {len(contents)} bytes, not one or more images of {size}; fetch it again"
        )
    rows = np.frombuffer(contents, np.uint8).reshape(-1, size)
    labels = rows[:, 0].copy()
    if labels.max() >= CLASSES:
        raise FileProblem(f"{path}: labels must be 0 to {CLASSES - 1}, not {labels.max()}")
    planes = rows[:, 1:].reshape(-1, *COLOUR_SHAPE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def find(folder: Path, name: str, packed: str, what: str) -> Path:
    """Path of the file of that name in ``folder``, plain or with the suffix ``packed``."""
    for path in (folder / name, folder / f"{name}{packed}"):
        if path.is_file():
            return path
    if not folder.is_dir():
        raise FileProblem(f"{folder}: no such folder; give the one with {what}")
    raise FileProblem(f"{folder}: has neither {name} nor {name}{packed}; {what} are needed")


def pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of one part, ``"train"`` or ``"t10k"``, that belong together."""
    at = find(folder, f"{part}-images-idx3-ubyte", ".gz", IDX_FILES)
    images = read_images(at)
    if images.shape[1:] != (SIDE, SIDE):
        rows, columns = images.shape[1:]
        raise FileProblem(f"{at}: images must be {SIDE}x{SIDE}, not {rows}x{columns}")
    if not len(images):
        raise FileProblem(f"{at}: needs at least one image, not 0")
    path = find(folder, f"{part}-labels-idx1-ubyte", ".gz", IDX_FILES)
    labels = read_labels(path)
    if len(labels) != len(images):
        raise FileProblem(
            f"{path}: has {len(labels)} labels, but {at.name} has {len(images)} images"
        )
    return images, labels
