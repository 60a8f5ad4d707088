"""What tells one network from another on a chip."""

from dataclasses import fields, replace

import numpy as np
import pytest

from brambling.digest import LENGTH, digest
from brambling.network import Network, Tensor
from brambling.quant.formats import Fixed


def test_is_sixteen_bytes_and_the_same_again(small_network):
    network = small_network([6, 4, 3])
    assert len(digest(network)) == LENGTH == 16
    assert digest(network) == digest(small_network([6, 4, 3]))


def test_does_not_change_from_one_version_to_the_next(small_network):
    assert digest(small_network([6, 4, 3])).hex() == "789b3dfa069042e23f159e93bea7eb94"


def test_names_and_provenance_do_not_count(small_network):
    network = small_network([6, 4, 3])
    layers = tuple(
        replace(
            layer,
            name=f"other{n}",
            inputs=("input" if n == 0 else f"other{n - 1}",),
        )
        for n, layer in enumerate(network.layers)
    )
    other = Network("another", network.input, layers, ("a", "b", "c"), "bright", {"accuracy": 0.5})
    assert digest(other) == digest(network)


def test_survives_being_saved(small_network, tmp_path):
    network = small_network([6, 4, 3])
    network.save(tmp_path / "net.safetensors")
    assert digest(Network.load(tmp_path / "net.safetensors")) == digest(network)


@pytest.mark.parametrize("where", range(4))
def test_one_weight_or_level_counts(small_network, where):
    network = small_network([6, 4, 3], argmax=False)
    layer = network.layers[where]
    key = "levels" if hasattr(layer, "levels") else "weights"
    changed = getattr(layer, key).copy()
    changed.flat[-1] = -changed.flat[-1] if key == "weights" else changed.flat[-1] + 1
    layers = [*network.layers]
    layers[where] = replace(layer, **{key: changed})
    assert digest(replace(network, layers=tuple(layers))) != digest(network)


def test_format_and_wiring_count(small_network, small_cnn):
    network = small_network([6, 4, 3])
    wider = replace(network, input=Tensor((6,), Fixed(9, 0, signed=False)))
    assert digest(wider) != digest(network)
    first, second = small_cnn(1), small_cnn(2)
    assert digest(first) != digest(second)


def test_every_attribute_counts(small_cnn):
    network = small_cnn(1)
    found = {digest(network)}
    for n, layer in enumerate(network.layers):
        for field in fields(layer):
            if field.name in {"name", "inputs"}:
                continue
            value = getattr(layer, field.name)
            if isinstance(value, bool | np.ndarray) or not isinstance(value, int):
                continue
            layers = [*network.layers]
            try:
                layers[n] = replace(layer, **{field.name: value + 1})
                changed = replace(network, layers=tuple(layers))
            except ValueError:
                continue
            assert digest(changed) not in found
            found.add(digest(changed))
