"""The oracle is the float model itself: hooks on its activations, without the exporter's trace."""

import numpy as np
import pytest

from brambling.network import Network, Thresholds
from brambling.quant.formats import Fixed
from brambling.sim import golden

torch = pytest.importorskip("torch")
graph = pytest.importorskip("brambling.quant.graph")
layers = pytest.importorskip("brambling.quant.layers")
models = pytest.importorskip("brambling.quant.models")
Quantiser = pytest.importorskip("brambling.quant.quantiser").Quantiser
nn = torch.nn


# Small parts --------------------------------------------------------------------------------------


class Conv(layers.QuantConv2d):
    """Convolution with groups and dilation."""

    def __init__(self, i, o, kernel, *, quantiser, groups=1, dilation=1, **options):
        super().__init__(i // groups, o, kernel, quantiser=quantiser, **options)
        self.in_channels, self.groups, self.dilation = i, groups, (dilation, dilation)


def sign():
    return Quantiser(1, signed=True, method="sign")


def lsq(bits, channels=None):
    return Quantiser(bits, signed=True, method="lsq", channels=channels)


def radix(bits, frac, signed=True):
    return Quantiser(bits, signed=signed, method="radix", frac=frac)


def act(bits=4, frac=2, signed=False, relu=False):
    return layers.QuantActivation(radix(bits, frac, signed), relu=relu)


def bits():
    return layers.QuantActivation(sign())


def pixels(offset=128, scale=1 / 64):
    return layers.PixelInput(offset, scale)


def conv(i, o, kernel=3, quantiser=None, **options):
    return Conv(i, o, kernel, quantiser=quantiser or radix(4, 2), **options)


def dense(i, o, quantiser=None, **options):
    return layers.QuantLinear(i, o, quantiser=quantiser or radix(4, 2), **options)


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


def cat(*parts):
    return torch.cat(parts, 1)


def swap(x):
    first, second = x.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


def split(x):
    first, second, third = torch.split(x, [1, 2, 1], 1)
    return torch.cat([third, second, first], 1)


def randomised(model, shape, seed=1):
    """Set batch-norms and steps at random; left in evaluation."""
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, layers.QuantConv2d | layers.QuantLinear):
            module.weight.data.normal_(0, 1)
            if module.bias is not None:
                module.bias.data.normal_(0, 1)
    model.train()(images(shape, 16, seed))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            module.weight.data.normal_(0.5, 1)
            module.bias.data.normal_(0, 1)
    return model.eval()


def images(shape, count, seed=0):
    """Images of pixels around a colour that differs from image to image, floats."""
    source = np.random.default_rng(seed)
    colour = source.integers(0, 256, (count, shape[2], 1, 1))
    noise = source.integers(-60, 60, (count, shape[2], *shape[:2]))
    return torch.from_numpy(np.clip(colour + noise, 0, 255).astype(np.float32))


@torch.no_grad()
def float_codes(model, x):
    """Codes of each activation in the order of calls, channels last; and the logits."""
    found = []

    def hook(module, inputs, result):
        codes = (result / module.quantiser.scale).round().long()
        found.append(codes.movedim(1, -1).numpy() if codes.dim() == 4 else codes.numpy())

    modules = [m for m in model.modules() if isinstance(m, layers.QuantActivation)]
    handles = [module.register_forward_hook(hook) for module in modules]
    logits = model(x)
    for handle in handles:
        handle.remove()
    return found, logits.numpy()


def same(model, shape, count=12, frozen=False):
    """Export; require equal codes at every activation, and equal classes; return the network."""
    if not frozen:
        model = randomised(model, shape)
    network = graph.export_graph(model, "tiny", shape)
    x = images(shape, count)
    found, logits = float_codes(model, x)
    edges = golden.run(network, x.movedim(1, -1).numpy().astype(np.uint8))
    names = [layer.name for layer in network.layers if layer.name.startswith("act")]
    assert len(names) == len(found)
    for name, codes in zip(names, found, strict=True):
        # A flattened image has another order there.
        if codes.ndim == 4 or edges[name].shape[1] < 40:
            assert np.array_equal(edges[name], codes), name
        assert len(np.unique(edges[name])) > 1, name
    assert np.array_equal(edges["argmax"], logits.argmax(axis=1))
    assert len(np.unique(edges[network.layers[-2].name], axis=0)) > 1
    return network


def end(channels, side, **options):
    """Flatten and a dense layer of 4 classes."""
    return [nn.Flatten(), dense(channels * side * side, 4, **options)]


IMAGE = (6, 6, 3)
#: Models for images of 6 x 6 x 3.
MODELS = {
    "bipolar": lambda: [
        *(pixels(), conv(3, 5, quantiser=sign()), nn.BatchNorm2d(5), bits(), nn.MaxPool2d(2)),
        *end(5, 2, quantiser=sign()),
    ],
    "bipolar with zero padding": lambda: [
        *(pixels(), conv(3, 4, quantiser=sign(), padding=1), nn.BatchNorm2d(4), bits()),
        *(conv(4, 4, quantiser=sign(), padding=1), nn.BatchNorm2d(4), bits()),
        *end(4, 6, quantiser=sign()),
    ],
    "ternary weights": lambda: [
        pixels(),
        conv(3, 5, quantiser=Quantiser(2, signed=True, method="ternary")),
        *(nn.BatchNorm2d(5), bits()),
        *end(5, 4, quantiser=sign()),
    ],
    "two-bit activations": lambda: [
        *(pixels(0, 1 / 256), conv(3, 5, quantiser=sign()), nn.BatchNorm2d(5), act(2, 0)),
        *(conv(5, 5, quantiser=sign()), nn.BatchNorm2d(5), act(2, 0), nn.MaxPool2d(2)),
        *end(5, 1),
    ],
    "learned steps": lambda: [
        *(pixels(), conv(3, 5, quantiser=lsq(4, 5), padding=1), nn.BatchNorm2d(5)),
        layers.QuantActivation(Quantiser(4, signed=False, method="lsq")),
        *(conv(5, 4, quantiser=lsq(3)), nn.BatchNorm2d(4)),
        layers.QuantActivation(Quantiser(3, signed=False, method="pact"), relu=True),
        *end(4, 4, quantiser=lsq(4)),
    ],
    "bias and no batch-norm": lambda: [
        *(pixels(0, 1 / 64), conv(3, 4, bias=True), act(relu=True), nn.MaxPool2d(2)),
        *end(4, 2, bias=True),
    ],
    "bias and batch-norm": lambda: [
        *(pixels(0, 1 / 64), conv(3, 4, bias=True), nn.BatchNorm2d(4), act(), *end(4, 4)),
    ],
    "a scale for each class": lambda: [
        *(pixels(), conv(3, 4), act(), *end(4, 4, quantiser=lsq(4, 4), bias=True)),
    ],
    "scaled logits": lambda: [
        *(pixels(), conv(3, 4), act(), nn.Dropout(), *end(4, 4), models.Scale(64)),
    ],
    "pooling before batch-norm": lambda: [
        *(pixels(), conv(3, 4), nn.MaxPool2d(2), nn.BatchNorm2d(4), act(), *end(4, 2)),
    ],
    "pooling before the activation": lambda: [
        *(pixels(), conv(3, 4, quantiser=sign()), nn.BatchNorm2d(4), nn.MaxPool2d(2, 1), act()),
        *end(4, 3),
    ],
    "padded pooling": lambda: [
        *(pixels(), conv(3, 4), act(), nn.MaxPool2d(3, 2, 1), *end(4, 2)),
    ],
    "signed activations behind ReLU": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4), act(5, 2, signed=True, relu=True), *end(4, 4)),
    ],
    "ReLU as a module": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), act(5, 2, signed=True)),
        *end(4, 4),
    ],
    "leaky ReLU": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4), nn.LeakyReLU(0.1), act(5, 3, signed=True)),
        *end(4, 4),
    ],
    "clipping": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4), nn.Hardtanh(-0.7, 1.1), act(6, 3, signed=True)),
        *(conv(4, 4), nn.ReLU6(), act(), *end(4, 2)),
    ],
    "tables": lambda: [
        *(pixels(), conv(3, 4), act(6, 2, signed=True), nn.SiLU(), act(5, 2, signed=True)),
        *(conv(4, 4), act(5, 1, signed=True), nn.Sigmoid(), nn.Tanh(), act(4, 4), *end(4, 2)),
    ],
    "average of 4": lambda: [
        *(pixels(), conv(3, 4), act(), nn.AvgPool2d(2), act(6, 4), *end(4, 2)),
    ],
    "average of 9": lambda: [
        *(pixels(), conv(3, 4), act(), nn.AvgPool2d(3, 1), act(6, 3), *end(4, 2)),
    ],
    "global average": lambda: [
        *(pixels(), conv(3, 4), act(), nn.AdaptiveAvgPool2d(1), act(6, 4), *end(4, 1)),
    ],
    "mean": lambda: [
        *(pixels(), conv(3, 4), act(), Applied(lambda x: x.mean((2, 3))), act(6, 4)),
        dense(4, 4),
    ],
    "average before batch-norm": lambda: [
        *(pixels(), conv(3, 4), nn.AvgPool2d(2), nn.BatchNorm2d(4), act(), *end(4, 2)),
    ],
    "residual": lambda: [
        *(pixels(), conv(3, 4, quantiser=lsq(4, 4), padding=1), nn.BatchNorm2d(4), act()),
        models.Residual(4, 4),
        models.Residual(4, 6, stride=2),
        *models.head(6, 3),
    ],
    "sum of sums": lambda: [
        *(pixels(), Joined(lambda a, b: a + b, conv(3, 4), conv(3, 4, quantiser=radix(4, 3)))),
        *(act(), *end(4, 4)),
    ],
    "a value added to itself": lambda: [
        *(pixels(), conv(3, 4), act(), Applied(lambda x: x + x), conv(4, 4), act(), *end(4, 2)),
    ],
    "concatenation": lambda: [
        pixels(),
        Joined(cat, nn.Sequential(conv(3, 2), act()), nn.Sequential(conv(3, 3), act(5, 3))),
        *(conv(5, 4), nn.BatchNorm2d(4), act(), *end(4, 2)),
    ],
    "concatenation before an activation": lambda: [
        *(pixels(), Joined(cat, conv(3, 2), conv(3, 3, quantiser=sign())), act(6, 1, signed=True)),
        *end(5, 4),
    ],
    "chunks": lambda: [pixels(), conv(3, 4), act(), Applied(swap), *end(4, 4)],
    "parts": lambda: [pixels(), conv(3, 4), act(), Applied(split), *end(4, 4)],
    "slice": lambda: [pixels(), conv(3, 6), act(), Applied(lambda x: x[:, 1:-1]), *end(4, 4)],
    "upsampling": lambda: [
        *(pixels(), conv(3, 4), act(), nn.Upsample(scale_factor=2), conv(4, 4), act()),
        *end(4, 6),
    ],
    "groups": lambda: [
        *(pixels(), conv(3, 4), act(), conv(4, 6, groups=2, padding=1), act(), *end(6, 4)),
    ],
    "depthwise": lambda: [
        *(pixels(), conv(3, 3, groups=3), act(), conv(3, 4, 1), act(), *end(4, 4)),
    ],
    "dilation": lambda: [
        *(pixels(), conv(3, 4, dilation=2, padding=2, stride=2), act(), *end(4, 3)),
    ],
    "batch-norm of a vector": lambda: [
        *(pixels(), conv(3, 4), act(), nn.Flatten(), nn.BatchNorm1d(64), act(4, 1), dense(64, 8)),
        *(nn.BatchNorm1d(8), act(), dense(8, 4)),
    ],
    "batch-norm without gain": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4, affine=False), act(), *end(4, 4)),
    ],
    "two batch-norms": lambda: [
        *(pixels(), conv(3, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4), act(), *end(4, 4)),
    ],
    "batch-norm behind a ReLU": lambda: [
        *(pixels(), conv(3, 4), nn.ReLU(), nn.BatchNorm2d(4), act(5, 3, signed=True)),
        *end(4, 4),
    ],
    "sum of unequal scales": lambda: [
        *(pixels(), Joined(lambda a, b: a + b, conv(3, 4, quantiser=lsq(4, 4)), conv(3, 4))),
        *(act(), *end(4, 4)),
    ],
    "sum behind a ReLU": lambda: [
        pixels(),
        Joined(lambda a, b: a + b, nn.Sequential(conv(3, 4), nn.ReLU()), conv(3, 4)),
        *(act(), *end(4, 4)),
    ],
    "pooling of falling channels that others read": lambda: [
        *(pixels(), conv(3, 4)),
        Joined(
            cat,
            nn.Sequential(nn.BatchNorm2d(4), nn.MaxPool2d(2), act(5, 3, signed=True)),
            nn.Sequential(nn.MaxPool2d(2), act(5, 3, signed=True)),
        ),
        *end(8, 2),
    ],
    "logits behind a ReLU": lambda: [
        *(pixels(), conv(3, 4), act(), *end(4, 4), nn.ReLU()),
    ],
    "raw pixels": lambda: [conv(3, 4), nn.BatchNorm2d(4), act(), *end(4, 4)],
}


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_those_of_the_float_model(name):
    same(nn.Sequential(*MODELS[name]()), IMAGE)


@pytest.mark.parametrize("name", MODELS)
def test_network_survives_its_file(name, tmp_path):
    model = randomised(nn.Sequential(*MODELS[name]()), IMAGE)
    network = graph.export_graph(model, "tiny", IMAGE, classes="abcd")
    network.save(tmp_path / "tiny.safetensors")
    assert Network.load(tmp_path / "tiny.safetensors") == network


# What is chosen -----------------------------------------------------------------------------------


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


def exported(*modules, shape=IMAGE, **options):
    model = randomised(nn.Sequential(*modules), shape)
    return graph.export_graph(model, "tiny", shape, **options)


def test_names_kinds_and_formats():
    network = exported(*MODELS["residual"]())
    assert str(network).splitlines() == [
        "tiny: 6x6x3:u8.0",
        *(f"  {row}" for row in RESIDUAL.splitlines()),
    ]


RESIDUAL = """\
conv1        Conv(input) -> 6x6x4:s14.0
act1         Thresholds(conv1) -> 6x6x4:u4.2
conv2        Conv(act1) -> 6x6x4:s11.2
act2         Thresholds(conv2) -> 6x6x4:u4.2
conv3        Conv(act2) -> 6x6x4:s10.2
act3         Requantise(conv3) -> 6x6x4:s8.4
add1         Add(act3, act1) -> 6x6x4:s9.4
act4         Requantise(add1) -> 6x6x4:u4.2
conv4        Conv(act4) -> 3x3x6:s10.2
act5         Thresholds(conv4) -> 3x3x6:u4.2
conv5        Conv(act5) -> 3x3x6:s11.2
act6         Requantise(conv5) -> 3x3x6:s8.4
conv6        Conv(act4) -> 3x3x6:s7.2
act7         Requantise(conv6) -> 3x3x6:s8.4
add2         Add(act6, act7) -> 3x3x6:s9.4
act8         Requantise(add2) -> 3x3x6:u4.2
pool1        Pool(act8) -> 1x1x6:u8.2
act9         Table(pool1) -> 1x1x6:u8.6
flatten1     Flatten(act9) -> 6:u8.6
fc1          Dense(flatten1) -> 10:s18.13
bias         Requantise(fc1) -> 10:s22.17
argmax       ArgMax(bias) -> scalar:u4.0
"""


def test_padding_is_the_code_of_zero():
    network = exported(*MODELS["learned steps"]())
    assert network.layer("conv1").pad_value == 128
    network = exported(*MODELS["bipolar with zero padding"]())
    assert [network.layer(name).pad_value for name in ("conv1", "conv2")] == [128, 0]


def test_powers_of_two_are_shifts():
    network = exported(pixels(), conv(3, 4), act(), *end(4, 4))
    requantise = network.layer("act1")
    # Sums of (pixel - 128) / 64 and weights of 1 / 4, to quarters.
    assert (requantise.shift, requantise.multiplier.tolist()) == (6, [1])


def test_bias_is_added_where_it_has_a_step():
    modules = [pixels(0, 1), conv(3, 4), act(), nn.Flatten(), dense(64, 4, bias=True)]
    model = randomised(nn.Sequential(*modules), IMAGE)
    with torch.no_grad():
        modules[-1].bias_step.fill_(1 / 16)
    network = same(model, IMAGE, frozen=True)
    layer = network.layer("bias")
    assert layer.multiplier.tolist() == [1]
    assert layer.bias.tolist() == modules[-1].bias_codes().tolist()


def test_bias_between_steps_keeps_the_order():
    """Equal sums are told apart by biases that differ by less than a step."""
    model = nn.Sequential(nn.Flatten(), dense(4, 4, quantiser=radix(2, 0), bias=True))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0]] * 2 + [[0, 1.0, 0, 0]] * 2))
        model[1].bias.copy_(torch.tensor([0.25, 0.5, -0.75, 1.5]))
    network = graph.export_graph(model, "tiny", (2, 2, 1), fmt=Fixed(2, 0, signed=False))
    codes = np.stack(np.meshgrid(*[range(4)] * 4, indexing="ij"), axis=-1).reshape(-1, 2, 2, 1)
    logits = model(torch.from_numpy(codes).float().movedim(3, 1)).detach().numpy()
    assert np.array_equal(golden.run(network, codes)["argmax"], logits.argmax(axis=1))
    assert network.layer("bias").multiplier.tolist() == [2]  # two fractions, a quarter and a half


def test_no_bipolar_channel_is_falling():
    network = exported(*MODELS["bipolar"]())
    for layer in network.layers:
        if isinstance(layer, Thresholds):
            assert not layer.falling.any()


def test_signs_stay_where_the_sums_have_two_readers():
    branch = nn.Sequential(nn.BatchNorm2d(4), bits())
    modules = [pixels(), conv(3, 4, quantiser=sign()), Joined(cat, branch, bits())]
    model = randomised(nn.Sequential(*modules, *end(8, 4, quantiser=sign())), IMAGE)
    with torch.no_grad():
        branch[0].weight.copy_(torch.tensor([1.0, -1.0, 2.0, -2.0]))
    network = same(model, IMAGE, frozen=True)
    assert network.layer("act1").falling.tolist() == [False, True, False, True]
    assert network.layer("cat1").inputs == ("act1", "act2")


def test_signs_stay_where_a_weight_has_no_negative():
    first = conv(3, 4, quantiser=radix(2, 0))
    model = nn.Sequential(pixels(), first, nn.BatchNorm2d(4), bits(), *end(4, 4, quantiser=sign()))
    model = randomised(model, IMAGE)
    with torch.no_grad():
        first.weight[0, 0, 0, 0] = -2
        model[2].weight.fill_(-1)
    network = same(model, IMAGE, frozen=True)
    assert network.layer("act1").falling.tolist()[0]


def test_parity_is_used_only_without_zero_padding():
    for name, step in (("bipolar", 2), ("bipolar with zero padding", 1)):
        model = randomised(nn.Sequential(*MODELS[name]()), IMAGE)
        found = graph.Graph(model, graph.Tensor(IMAGE, graph.PIXEL))
        assert {v.stride for v in found.steps.values() if v.edge == "fc1"} == {2}
        if name != "bipolar":
            assert {v.stride for v in found.steps.values() if v.edge == "conv2"} == {step}


def test_without_argmax_the_logits_are_the_result():
    network = exported(pixels(), conv(3, 4), act(), argmax=False)
    assert kinds(network) == ["Conv", "Requantise"]
    assert network.output.shape == (4, 4, 4)


def test_facts_are_kept():
    network = exported(
        *(pixels(), conv(3, 4), act(), *end(4, 4)),
        classes=("a", "b", "c", "d"),
        normalisation="none",
        provenance={"seed": 1},
    )
    assert network.classes == ("a", "b", "c", "d")
    assert (network.normalisation, network.provenance) == ("none", {"seed": 1})
