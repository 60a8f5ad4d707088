import numpy as np
import pytest

torch = pytest.importorskip("torch")
augment = pytest.importorskip("brambling.quant.augment")
seeds = pytest.importorskip("brambling.quant.seeds")


def colours(count=6):
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_crop_without_shift_mirrors_half_of_the_images():
    images = colours(200)
    x = augment.crop(augment.pad(images), torch.arange(200), 0, seeds.generator(1, "test", 0))
    assert x.dtype == torch.uint8
    assert x.is_contiguous(memory_format=torch.channels_last)
    result = x.permute(0, 2, 3, 1).numpy()
    kept = [np.array_equal(a, b) for a, b in zip(result, images, strict=True)]
    turned = [np.array_equal(a, b[:, ::-1]) for a, b in zip(result, images, strict=True)]
    assert all(np.logical_xor(kept, turned))
    assert 70 < sum(kept) < 130


def test_crop_is_a_window_of_the_mirrored_surroundings():
    images = colours(50)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    rows = torch.tensor([7, 3, 7])
    x = augment.crop(augment.pad(images), rows, 4, seeds.generator(2, "test", 0))
    for row, image in zip(rows, x.permute(0, 2, 3, 1).numpy(), strict=True):
        windows = [
            padded[row, down : down + 32, right : right + 32]
            for down in range(9)
            for right in range(9)
        ]
        assert any(
            np.array_equal(image, window) or np.array_equal(image, window[:, ::-1])
            for window in windows
        )


def test_cut_out_is_a_grey_square():
    images = torch.zeros(100, 3, 32, 32, dtype=torch.uint8)
    x = augment.cut_out(images, 8, seeds.generator(3, "test", 0))
    sizes = (x == 128).sum(dim=(1, 2, 3)) // 3
    assert sizes.max() == 81
    assert sizes.min() >= 25  # around a corner
    assert torch.equal(x == 128, x != 0)
    assert torch.equal(x[:, 0], x[:, 2])


def test_changes_depend_on_the_generator():
    padded, rows = augment.pad(colours()), torch.arange(6)
    first, again, other = (
        augment.cut_out(augment.crop(padded, rows, 3, source), 8, source)
        for source in (seeds.generator(seed, "test", 0) for seed in (1, 1, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
