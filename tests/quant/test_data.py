import gzip
import lzma
import struct
from pathlib import Path

import numpy as np
import pytest

from brambling.errors import FileProblem
from brambling.quant.data import Cifar10, Mnist, read_cifar, read_idx, read_images, read_labels

MNIST = Path(__file__).parents[2].parent / "shared/data/mnist"
CIFAR10 = MNIST.parent / "cifar10"


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def images(count, side=28):
    return np.arange(count * side * side).reshape(count, side, side) % 256


def message(path, act):
    with pytest.raises(FileProblem) as caught:
        act()
    return str(caught.value).replace(str(path), "PATH")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0,), (0, 28, 28)], ids=str)
def test_reads_plain_and_gzip(tmp_path, pack, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    (tmp_path / "name").write_bytes(pack(idx(array)))
    assert np.array_equal(read_idx(tmp_path / "name"), array)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (
            b"\x89PNG....",
            (
                "PATH: an idx file of bytes begins with 0x000008 and its number of dimensions, "
                "not 0x89504e47"
            ),
        ),
        (
            b"",
            "PATH: an idx file of bytes begins with 0x000008 and its number of dimensions, not 0x",
        ),
        (
            b"\0\0\x0d\1\0\0\0\0",  # floats
            (
                "PATH: an idx file of bytes begins with 0x000008 and its number of dimensions, "
                "not 0x00000d01"
            ),
        ),
        (
            idx(images(2))[:9],
            "PATH: its header has 16 bytes, but the file only 9; fetch it again",
        ),
        (
            idx(images(2))[:-3],
            "PATH: its header promises 2x28x28 bytes = 1568, but 1565 follow; fetch it again",
        ),
        (
            idx(images(2)) + b"\0",
            "PATH: its header promises 2x28x28 bytes = 1568, but 1569 follow; fetch it again",
        ),
        (
            gzip.compress(idx(images(2)))[:-9],
            (
                "PATH: not a whole gzip file (Compressed file ended before the end-of-stream "
                "marker was reached); fetch it again"
            ),
        ),
        (
            b"\x1f\x8b\x07" + bytes(30),
            "PATH: not a whole gzip file (Unknown compression method); fetch it again",
        ),
        (
            gzip.compress(idx(images(2)), mtime=0)[:10] + b"\xff" * 30,
            (
                "PATH: not a whole gzip file (Error -3 while decompressing data: invalid block "
                "type); fetch it again"
            ),
        ),
    ],
)
def test_damaged_file(tmp_path, contents, expected):
    path = tmp_path / "name.gz"
    path.write_bytes(contents)
    assert message(path, lambda: read_idx(path)) == expected


def test_absent_file(tmp_path):
    path = tmp_path / "name"
    assert message(path, lambda: read_idx(path)) == "PATH: no such file"


def test_unreadable_file(tmp_path):
    assert message(tmp_path, lambda: read_idx(tmp_path)) == (
        "PATH: cannot be read (Is a directory)"
    )


def test_labels_for_images(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.arange(5)))
    assert message(path, lambda: read_images(path)) == (
        "PATH: images have 3 dimensions (magic 0x00000803), not 1"
    )


def test_images_for_labels(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx(images(2)))
    assert message(path, lambda: read_labels(path)) == (
        "PATH: labels have 1 dimension (magic 0x00000801), not 3"
    )


def test_label_out_of_range(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.array([3, 12, 9])))
    assert message(path, lambda: read_labels(path)) == "PATH: labels must be 0 to 9, not 12"
    assert np.array_equal(read_labels(path, classes=13), [3, 12, 9])


def write_set(folder, **other):
    parts = {
        "train-images-idx3-ubyte": images(3),
        "train-labels-idx1-ubyte": np.array([1, 2, 3]),
        "t10k-images-idx3-ubyte.gz": images(2),
        "t10k-labels-idx1-ubyte": np.array([9, 0]),
    }
    for name, array in (parts | other).items():
        pack = gzip.compress if name.endswith("gz") else bytes
        (folder / name).write_bytes(pack(idx(array)))


def test_set_mixes_plain_and_gzip(tmp_path):
    write_set(tmp_path)
    mnist = Mnist.read(tmp_path)
    assert np.array_equal(mnist.train_images, images(3))
    assert np.array_equal(mnist.train_labels, [1, 2, 3])
    assert np.array_equal(mnist.test_images, images(2))
    assert np.array_equal(mnist.test_labels, [9, 0])


def test_set_without_folder(tmp_path):
    path = tmp_path / "nowhere"
    assert message(path, lambda: Mnist.read(path)) == (
        "PATH: no such folder; give the one with MNIST's four idx files"
    )


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_set_incomplete(tmp_path, part, kind):
    write_set(tmp_path)
    name = f"{part}-{kind}-ubyte"
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / f"{name}.gz").unlink(missing_ok=True)
    assert message(tmp_path, lambda: Mnist.read(tmp_path)) == (
        f"PATH: has neither {name} nor {name}.gz; MNIST's four idx files are needed"
    )


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        (
            "train-labels-idx1-ubyte",
            np.array([1, 2]),
            "PATH/train-labels-idx1-ubyte: has 2 labels, but train-images-idx3-ubyte has 3 images",
        ),
        (
            "train-images-idx3-ubyte",
            images(3, side=32),
            "PATH/train-images-idx3-ubyte: images must be 28x28, not 32x32",
        ),
        (
            "train-images-idx3-ubyte",
            images(0),
            "PATH/train-images-idx3-ubyte: needs at least one image, not 0",
        ),
    ],
)
def test_set_wrong(tmp_path, name, array, expected):
    write_set(tmp_path, **{name: array})
    assert message(tmp_path, lambda: Mnist.read(tmp_path)) == expected


def test_whole_set():
    if not MNIST.is_dir():
        pytest.skip(f"{MNIST} is absent: the training images do not ship with the package")
    mnist = Mnist.read(MNIST)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.array_equal(np.bincount(mnist.train_labels), counts)
    assert mnist.test_images.shape == (10000, 28, 28)


def batch(images, labels):
    """Bytes of a binary batch of CIFAR-10, image by image and plane by plane."""
    return b"".join(
        bytes([label]) + b"".join(image[:, :, plane].tobytes() for plane in range(3))
        for image, label in zip(images, labels, strict=True)
    )


def colours(seed, count=3):
    source = np.random.default_rng(seed)
    return source.integers(0, 256, (count, 32, 32, 3), np.uint8), source.integers(0, 10, count)


def write_cifar(folder, pack=bytes, suffix=""):
    """Write six batches; return their images and labels."""
    parts = [colours(seed) for seed in range(6)]
    names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    for name, part in zip(names, parts, strict=True):
        (folder / f"{name}{suffix}").write_bytes(pack(batch(*part)))
    return parts


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (lzma.compress, ".xz")])
def test_reads_cifar(tmp_path, pack, suffix):
    parts = write_cifar(tmp_path, pack, suffix)
    data = Cifar10.read(tmp_path)
    assert data.train_images.dtype == data.train_labels.dtype == np.uint8
    assert np.array_equal(data.train_images, np.concatenate([images for images, _ in parts[:5]]))
    assert np.array_equal(data.train_labels, np.concatenate([labels for _, labels in parts[:5]]))
    assert np.array_equal(data.test_images, parts[5][0])
    assert np.array_equal(data.test_labels, parts[5][1])


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (b"", "PATH: has 0 bytes, not one or more images of 3073; fetch it again"),
        (bytes(3074), "PATH: has 3074 bytes, not one or more images of 3073; fetch it again"),
        (bytes([10]) + bytes(3072), "PATH: labels must be 0 to 9, not 10"),
    ],
    ids=["empty", "torn", "label"],
)
def test_refuses_batches(tmp_path, contents, expected):
    path = tmp_path / "name"
    path.write_bytes(contents)
    assert message(path, lambda: read_cifar(path)) == expected


def test_half_an_xz_file(tmp_path):
    path = tmp_path / "name"
    path.write_bytes(lzma.compress(batch(*colours(1)))[:-40])
    text = message(path, lambda: read_cifar(path))
    assert text.startswith("PATH: not a whole xz file (")
    assert text.endswith("); fetch it again")


def test_cifar_absent(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    assert message(tmp_path, lambda: Cifar10.read(tmp_path)) == (
        "PATH: has neither data_batch_4.bin nor data_batch_4.bin.xz; "
        "CIFAR-10's six binary batches are needed"
    )
    path = tmp_path / "nowhere"
    assert message(path, lambda: Cifar10.read(path)) == (
        "PATH: no such folder; give the one with CIFAR-10's six binary batches"
    )


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10's files are not here")
def test_real_cifar():
    images, labels = read_cifar(CIFAR10 / "test_batch.bin.xz")
    assert images.shape == (10000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:4].tolist() == [3, 8, 8, 0]  # the cat, two ships and the airplane
