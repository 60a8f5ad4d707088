"""What cannot be exported is refused with one line: layer, attribute, value, what comes nearest."""

import pytest

from brambling.errors import ConfigError, UnsupportedLayer

torch = pytest.importorskip("torch")
graph = pytest.importorskip("brambling.quant.graph")
layers = pytest.importorskip("brambling.quant.layers")
Quantiser = pytest.importorskip("brambling.quant.quantiser").Quantiser
nn = torch.nn

IMAGE = (6, 6, 3)


def lsq(bits, channels=None):
    return Quantiser(bits, signed=True, method="lsq", channels=channels)


def radix(bits, frac, signed=True):
    return Quantiser(bits, signed=signed, method="radix", frac=frac)


def act(bits=4):
    return layers.QuantActivation(radix(bits, 2, signed=False))


def bits():
    return layers.QuantActivation(Quantiser(1, signed=True, method="sign"))


def pixels(offset=128):
    return layers.PixelInput(offset, 1 / 64)


def conv(i, o, quantiser=None, **options):
    return layers.QuantConv2d(i, o, 3, quantiser=quantiser or radix(4, 2), **options)


def dense(i, o):
    return layers.QuantLinear(i, o, quantiser=radix(4, 2))


def cat(*parts):
    return torch.cat(parts, 1)


class Joined(nn.Module):
    """``join`` of the results of several modules on one input."""

    def __init__(self, join, *parts):
        super().__init__()
        self.parts, self.join = nn.ModuleList(parts), join

    def forward(self, x):
        return self.join(*(part(x) for part in self.parts))


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def q(quantiser, **options):
    return layers.QuantActivation(quantiser, **options)


THREE = lsq(4)  #: With a step that is no power of two.
nn.init.constant_(THREE.step, 3 / 16)
START = [pixels(), conv(3, 4), act()]
FIRST = [pixels(), conv(3, 4)]
NORM = nn.BatchNorm2d(4)
UNQUANTISED = "input cannot be unquantised: put a QuantActivation before it"
#: Modules, and what is said of them.
UNSUPPORTED = {
    "float convolution": (
        [nn.Conv2d(3, 4, 3)],
        "0 (Conv2d): kind cannot be Conv2d: use QuantConv2d",
    ),
    "float dense layer": (
        [*START, nn.Flatten(), nn.Linear(64, 4)],
        "4 (Linear): kind cannot be Linear: use QuantLinear",
    ),
    "convolution of a sequence": (
        [nn.Conv1d(3, 4, 3)],
        "0 (Conv1d): kind cannot be Conv1d: use QuantConv2d on images of height 1",
    ),
    "transposed convolution": (
        [nn.ConvTranspose2d(3, 4, 3)],
        "0 (ConvTranspose2d): kind cannot be ConvTranspose2d: use Upsample and QuantConv2d",
    ),
    "layer norm": (
        [nn.LayerNorm(6)],
        "0 (LayerNorm): kind cannot be LayerNorm: use BatchNorm2d",
    ),
    "softmax": (
        [*START, nn.Softmax(1)],
        "3 (Softmax): kind cannot be Softmax: leave it out, the largest logit is the class",
    ),
    "unquantised input of a convolution": (
        [*FIRST, NORM, conv(4, 4)],
        f"3 (QuantConv2d): {UNQUANTISED}",
    ),
    "ReLU before a convolution": (
        [*FIRST, nn.LeakyReLU(), conv(4, 4)],
        f"3 (QuantConv2d): {UNQUANTISED}",
    ),
    "two batch-norms": (
        [*FIRST, NORM, nn.BatchNorm2d(4), conv(4, 4)],
        f"4 (QuantConv2d): {UNQUANTISED}",
    ),
    "pooling of a curve": (
        [*START, nn.SiLU(), nn.MaxPool2d(2)],
        f"4 (MaxPool2d): {UNQUANTISED}",
    ),
    "average of a ReLU": (
        [*FIRST, nn.LeakyReLU(), nn.AvgPool2d(2)],
        f"3 (AvgPool2d): {UNQUANTISED}",
    ),
    "sum of batch-norms": (
        [*FIRST, Joined(lambda a, b: a + b, NORM, nn.BatchNorm2d(4))],
        f"add (add): {UNQUANTISED}",
    ),
    "scale of each channel": (
        [pixels(), conv(3, 4, quantiser=lsq(4, 4)), conv(4, 4)],
        (
            "2 (QuantConv2d): scales of the input's channels cannot be so different: put a "
            "QuantActivation before it"
        ),
    ),
    "sum with a number": (
        [*START, Applied(lambda x: x + 1)],
        "add (add): inputs cannot be numbers: add two tensors",
    ),
    "padding that is no code": (
        [pixels(100000), conv(3, 4, padding=1)],
        (
            "1 (QuantConv2d): padding cannot be with zeros, which are 100000 of u8.0: use padding "
            "0, or an offset that is a code"
        ),
    ),
    "padding by name": (
        [pixels(), conv(3, 4, padding="same")],
        "1 (QuantConv2d): padding cannot be 'same': use numbers and mode 'zeros'",
    ),
    "pooling dilation": (
        [*START, nn.MaxPool2d(2, dilation=2)],
        "3 (MaxPool2d): dilation cannot be 2: use 1",
    ),
    "pooling ceil": (
        [*START, nn.MaxPool2d(2, ceil_mode=True)],
        "3 (MaxPool2d): ceil_mode cannot be True: use False",
    ),
    "average ceil": (
        [*START, nn.AvgPool2d(2, ceil_mode=True)],
        "3 (AvgPool2d): ceil_mode cannot be True: use False",
    ),
    "average padding": (
        [*START, nn.AvgPool2d(2, padding=1)],
        "3 (AvgPool2d): padding cannot be 1: use 0",
    ),
    "average divisor": (
        [*START, nn.AvgPool2d(2, divisor_override=3)],
        "3 (AvgPool2d): divisor_override cannot be 3: use None",
    ),
    "adaptive size": (
        [*START, nn.AdaptiveAvgPool2d(2)],
        "3 (AdaptiveAvgPool2d): output_size cannot be 2: use 1, or AvgPool2d",
    ),
    "bilinear": (
        [*START, nn.Upsample(scale_factor=2, mode="bilinear")],
        "3 (Upsample): mode cannot be 'bilinear': use 'nearest'",
    ),
    "upsampling by a half": (
        [*START, nn.Upsample(scale_factor=1.5)],
        "3 (Upsample): scale_factor cannot be 1.5: use whole numbers",
    ),
    "upsampling to a size": (
        [*START, nn.Upsample(size=9)],
        "3 (Upsample): scale_factor cannot be None: use whole numbers",
    ),
    "partial flatten": (
        [*START, nn.Flatten(2)],
        "3 (Flatten): dimensions cannot be (2, -1): flatten from 1 to -1",
    ),
    "dense layer on an image": (
        [*START, dense(4, 4)],
        "3 (QuantLinear): input cannot be 4x4x4:u4.2: put a Flatten before it",
    ),
    "negative slope": (
        [*FIRST, nn.LeakyReLU(-0.5)],
        "2 (LeakyReLU): negative_slope cannot be -0.5: use one above 0",
    ),
    "curve of a sum": (
        [*FIRST, act(11), nn.SiLU()],
        "3 (SiLU): input cannot be u11.2: put a QuantActivation of at most 10 bits before it",
    ),
    "ternary activation": (
        [*FIRST, q(Quantiser(2, signed=True, method="ternary"))],
        "2 (QuantActivation): method cannot be ternary: use lsq or radix",
    ),
    "activation with channels": (
        [*FIRST, q(lsq(4, 4))],
        "2 (QuantActivation): channels cannot be 4: use one scale",
    ),
    "no statistics": (
        [*FIRST, nn.BatchNorm2d(4, track_running_stats=False)],
        "2 (BatchNorm2d): track_running_stats cannot be False: use True",
    ),
    "function": (
        [*START, Applied(lambda x: x * x)],
        "mul (mul): kind cannot be a function: use a module of torch.nn, or of quant.layers",
    ),
    "slice of rows": (
        [*START, Applied(lambda x: x[:, :, 1:])],
        (
            "getitem (getitem): index cannot be (slice(None, None, None), slice(None, None, None), "
            "slice(1, None, None)): slice the channels, x[:, a:b]"
        ),
    ),
    "slice with a step": (
        [*START, Applied(lambda x: x[:, ::2])],
        "getitem (getitem): step of the slice cannot be 2: use 1",
    ),
    "chunks of rows": (
        [*START, Applied(lambda x: x.chunk(2, 2)[0])],
        "chunk (chunk): dimension cannot be 2: use 1, the channels",
    ),
    "mean of channels": (
        [*START, Applied(lambda x: x.mean(1))],
        "mean (mean): dimensions cannot be 1: use (2, 3), rows and columns",
    ),
    "joined vectors": (
        [*START, Joined(cat, nn.Flatten(), nn.Flatten())],
        "cat (cat): input cannot be a flattened image: join the images, then flatten",
    ),
    "branch": (
        [Applied(lambda x: x if x.sum() > 0 else -x)],
        (
            "Sequential: forward cannot be traced (symbolically traced variables cannot be used as "
            "inputs to control flow): branch on no values"
        ),
    ),
    "two results": (
        [*START, Applied(lambda x: (x, x))],
        "output: number of results cannot be 1: return one",
    ),
    "image as logits": (
        [*START],
        "output: value cannot be a flattened image: put a QuantLinear before it",
    ),
    "unquantised logits": (
        [*START, nn.Flatten(), dense(64, 4), nn.LeakyReLU()],
        "output: input cannot be unquantised: put a QuantActivation before it",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_named(name):
    modules, message = UNSUPPORTED[name]
    model = nn.Sequential(*modules).eval()
    with pytest.raises(UnsupportedLayer) as caught:
        graph.export_graph(model, "tiny", IMAGE)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(value):
    broken = conv(3, 4, bias=True)
    model = nn.Sequential(
        pixels(), broken, nn.BatchNorm2d(4), act(), nn.Flatten(), dense(64, 4)
    ).eval()
    places = {
        "1 (QuantConv2d): weight: element 5": (broken.weight, (0, 0, 1, 2)),
        "1 (QuantConv2d): bias: element 2": (broken.bias, (2,)),
    }
    for what, (parameter, place) in places.items():
        with torch.no_grad():
            before = float(parameter[place])
            parameter[place] = value
        with pytest.raises(ConfigError) as caught:
            graph.export_graph(model, "tiny", IMAGE)
        assert str(caught.value) == f"{what} must be finite, not {value}; train with a lower rate"
        with torch.no_grad():
            parameter[place] = before
    with torch.no_grad():
        model[2].bias[1] = value
    with pytest.raises(ConfigError, match=r"^2 \(BatchNorm2d\): bias of channel 1 must be finite"):
        graph.export_graph(model, "tiny", IMAGE)


def test_shape_of_an_image():
    with pytest.raises(ConfigError) as caught:
        graph.export_graph(nn.Sequential(pixels()), "tiny", (6, 6))
    assert str(caught.value) == "tiny: input_shape must be (rows, columns, channels), not (6, 6)"
