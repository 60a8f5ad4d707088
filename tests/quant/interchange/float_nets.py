"""Small float models in ONNX: built operation by operation, or of the zoo's float weights."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from brambling import zoo
from brambling.quant.interchange import reader

__all__ = ["NETS", "Net", "cifar_cnn", "lenet5"]


class Net:
    """Makes a float model operation by operation; each returns the name of its result."""

    def __init__(self, *shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.shape, self.nodes, self.constants = shape, [], {}

    def constant(self, values):
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(values)
        return name

    def floats(self, *shape, scale=1.0):
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def add(self, op, *inputs, **attributes):
        name = f"{op.lower()}{len(self.nodes)}"
        domain = attributes.pop("domain", "")
        node = helper.make_node(
            op, list(inputs), [f"t{len(self.nodes)}"], name=name, domain=domain, **attributes
        )
        self.nodes.append(node)
        return node.output[0]

    def conv(self, x, inputs, outputs, kernel=3, groups=1, bias=True, **attributes):
        weights = self.floats(outputs, inputs // groups, kernel, kernel, scale=1 / (kernel * 2))
        more = [self.floats(outputs, scale=0.2)] if bias else []
        shape = [kernel, kernel]
        return self.add("Conv", x, weights, *more, group=groups, kernel_shape=shape, **attributes)

    def gemm(self, x, inputs, outputs, **attributes):
        weights = self.floats(outputs, inputs, scale=0.3)
        return self.add("Gemm", x, weights, self.floats(outputs, scale=0.2), transB=1, **attributes)

    def norm(self, x, channels):
        more = [self.floats(channels), self.floats(channels), self.floats(channels, scale=0.3)]
        more.append(self.constant(self.rng.uniform(0.2, 2, channels).astype(np.float32)))
        return self.add("BatchNormalization", x, *more, epsilon=1e-3)

    def model(self, version=17):
        kind = onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("x", kind, ["n", *self.shape])]
        output = helper.make_empty_tensor_value_info(self.nodes[-1].output[0])
        tensors = [numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        made = helper.make_graph(self.nodes, "net", inputs, [output], tensors)
        imports = [helper.make_opsetid("", version), helper.make_opsetid("own", 1)]
        imports.append(helper.make_opsetid("qonnx.custom_op.general", 1))
        return helper.make_model(made, opset_imports=imports, ir_version=8)

    def graph(self, version=17):
        return reader.parse(self.model(version), "net")

    def images(self, n=24):
        return self.rng.normal(0, 1, (n, *self.shape)).astype(np.float32)


# Networks -----------------------------------------------------------------------------------------


def plain(seed=0):
    net = Net(2, 8, 8, seed=seed)
    x = net.add("Relu", net.norm(net.conv("x", 2, 4, bias=False, pads=[1] * 4), 4))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("LeakyRelu", net.conv(x, 4, 6), alpha=0.125)
    x = net.add("Relu", net.gemm(net.add("Flatten", x), 24, 8))
    x = net.add("Add", net.add("MatMul", x, net.floats(8, 5)), net.floats(5))
    net.add("Softmax", x)
    return net


def residual(seed=0):
    net = Net(3, 8, 8, seed=seed)
    start = net.add("Clip", net.norm(net.conv("x", 3, 4, pads=[1] * 4), 4),
                    net.constant(np.float32(0)), net.constant(np.float32(6)))  # fmt: skip
    x = net.add("Relu", net.norm(net.conv(start, 4, 4, pads=[1] * 4), 4))
    x = net.norm(net.conv(x, 4, 4, pads=[1] * 4), 4)
    middle = net.add("Relu", net.add("Add", x, start))
    left = net.norm(net.conv(middle, 4, 6, strides=[2, 2], pads=[1] * 4), 6)
    right = net.norm(net.conv(middle, 4, 6, kernel=1, strides=[2, 2]), 6)
    x = net.add("Relu", net.add("Add", left, right))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.gemm(x, 6, 4)
    return net


def joined(seed=0):
    net = Net(2, 9, 9, seed=seed)
    x = net.add("Relu", net.conv("x", 2, 4, strides=[2, 2]))
    deep = net.add("Relu", net.conv(x, 4, 4, groups=4, pads=[1] * 4))
    wide = net.conv(x, 4, 3, kernel=1)
    pooled = net.add("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4,
                     count_include_pad=1)  # fmt: skip
    x = net.add("Concat", deep, wide, pooled, axis=1)
    x = net.add("Relu", net.norm(x, 11))
    x = net.add("Concat", x, net.add("Relu", net.conv(x, 11, 2, kernel=1)), axis=1)
    pads = net.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1]))
    x = net.add("Pad", x, pads)
    x = net.add("Transpose", net.conv(x, 13, 5), perm=[0, 2, 3, 1])
    x = net.add("Reshape", x, net.constant(np.array([0, -1])))
    x = net.add("Cast", net.add("Dropout", net.add("Identity", x)), to=onnx.TensorProto.FLOAT)
    net.gemm(x, 45, 3)
    return net


def averaged(seed=0):
    net = Net(3, 6, 6, seed=seed)
    x = net.add("Relu", net.conv("x", 3, 4))
    x = net.add("ReduceMean", net.conv(x, 4, 5, pads=[1] * 4), axes=[2, 3], keepdims=0)
    net.add("Softmax", x)
    return net


NETS = {make.__name__: make for make in (plain, residual, joined, averaged)}


# Of the zoo ---------------------------------------------------------------------------------------


def lenet5():
    """The zoo's float LeNet-5, which takes pixels / 256, as ONNX."""
    weights = load_file(zoo.FOLDER / "float" / "lenet5.safetensors")
    net = Net(1, 28, 28)
    net.constants = weights
    names = [(f"{n}.weight", f"{n}.bias") for n in (1, 4, 8, 10, 12)]
    x = "x"
    for n, pads in enumerate((2, 0)):
        x = net.add("Relu", net.add("Conv", x, *names[n], pads=[pads] * 4))
        x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Flatten", x)
    for n in (2, 3):
        x = net.add("Relu", net.add("Gemm", x, *names[n], transB=1))
    net.add("Gemm", x, *names[4], transB=1)
    return net.graph()


def cifar_cnn():
    """The zoo's float CNN, which takes (pixels - 128) / 64, as ONNX."""
    weights = load_file(zoo.FOLDER / "float" / "cifar-cnn.safetensors")
    net = Net(3, 32, 32)
    net.constants = weights
    found = sorted({int(name.split(".")[0]) for name in weights})
    names = [(f"{n}.weight", f"{n}.bias") for n in found]
    x = "x"
    for n in range(3):
        x = net.add("Relu", net.add("Conv", x, *names[n], pads=[1] * 4))
        x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Relu", net.add("Gemm", net.add("Flatten", x), *names[3], transB=1))
    net.add("Gemm", x, *names[4], transB=1)
    return net.graph()
