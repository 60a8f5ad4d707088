"""The layout of frames: from what a device says, or from its sizes where they leave no doubt."""

import numpy as np
import pytest

from brambling.errors import DeviceProblem
from brambling.host.layout import FrameLayout, beats_of
from brambling.hw.accelerator import pipeline
from brambling.hw.beat import Beats
from brambling.layers import Tensor
from brambling.protocol import Ident, bytes_of_frames, frame_size, layout_of
from brambling.quant.formats import Bipolar, Fixed
from brambling.sim import golden

U8, U4 = Fixed(8, 0, signed=False), Fixed(4, 0, signed=False)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_device_says_is_its_layout(small_cnn, random_plan, random_frames, seed):
    network = small_cnn(seed)
    nodes = pipeline(network, random_plan(network, seed))
    frame, result = nodes[0].spec.i, nodes[-1].spec.o
    ident = Ident(
        digest=bytes(16),
        clock_hz=1,
        frame_bytes=frame_size(frame),
        result_bytes=frame_size(result),
        credits=1,
    )
    layout = FrameLayout.of(network, ident, layout_of(frame), layout_of(result))
    images = random_frames(network, 3, seed)
    assert layout.encode(network, images) == bytes_of_frames(frame, images.reshape(3, -1))
    last = network.layers[-1].name
    values = golden.run(network, images, edges=(last,))[last]
    back = layout.decode(network, bytes_of_frames(result, values.reshape(3, -1)))
    assert (back.shape, back.dtype) == (values.shape, values.dtype)
    assert back.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("tensor", "lanes"),
    [
        (Tensor((784,), U8), 7),
        (Tensor((16,), Bipolar()), 8),
        (Tensor((4, 5, 1), U8), 1),
        (Tensor((), U4), 1),
    ],
)
def test_sizes_tell_where_there_is_no_doubt(tensor, lanes):
    beats = Beats.of(tensor, lanes)
    found = beats_of(tensor, frame_size(beats), 0, "a frame")
    codes = [[tensor.fmt.max if n % 3 else tensor.fmt.min for n in range(tensor.size)]]
    assert bytes_of_frames(found, np.array(codes)) == bytes_of_frames(beats, np.array(codes))


@pytest.mark.parametrize(
    ("tensor", "size", "said", "message"),
    [
        (
            Tensor((10,), U4),
            5,
            layout_of(Beats.of(Tensor((10,), U4), 3)),
            "a frame has 8 bytes as the device tells its layout, but takes 5: build it again",
        ),
        (
            Tensor((10,), U4),
            5,
            11 | 1 << 16,
            "a frame of the device is no 10:u4.0: lanes must be 1 to 10, not 11: build it again",
        ),
        (
            Tensor((10,), U4),
            4,
            0,
            "a frame of the device has 4 bytes, which 10:u4.0 cannot have: build it again",
        ),
        (
            Tensor((12,), Fixed(3, 0, signed=False)),
            6,
            0,
            "the device does not tell the layout of a frame, and 6 bytes mean several: build again",
        ),
    ],
)
def test_what_cannot_be_or_is_in_doubt_is_refused(tensor, size, said, message):
    with pytest.raises(DeviceProblem) as caught:
        beats_of(tensor, size, said, "a frame")
    assert str(caught.value) == message
