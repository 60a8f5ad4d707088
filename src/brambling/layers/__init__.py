"""The kinds of layer that a network is made of: what is computed, integers only."""

from brambling.layers.base import Layer, Tensor
from brambling.layers.elementwise import Requantise, Table, Thresholds
from brambling.layers.image import DepthToSpace, Pool, Upsample, Window
from brambling.layers.product import Conv, Dense
from brambling.layers.structure import Add, ArgMax, Concat, Flatten, Slice

__all__ = [
    "Add",
    "ArgMax",
    "Concat",
    "Conv",
    "Dense",
    "DepthToSpace",
    "Flatten",
    "Layer",
    "Pool",
    "Requantise",
    "Slice",
    "Table",
    "Tensor",
    "Thresholds",
    "Upsample",
    "Window",
]
