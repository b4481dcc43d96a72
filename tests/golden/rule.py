"""The closed-form rule that gives every tensor of a golden case its value.

The recorders use it to fill the official models, and the tests use it to fill ours, so that both start from the same
float64 numbers without storing them.  For a tensor with ordinal ``o`` the entry at flat index ``i`` is made from

    v = sin(2 pi ((7 i^2 + 13 i) mod 1009) / 1009 + 1.3 o)

and then scaled by kind: "matrix" (dim >= 2) sqrt(2 / fan_in) v with fan_in = prod(shape[1:]); "scale" (a batch-norm
weight) 1 + 0.1 v; "bias" 0.1 v; "arch" (an architecture matrix) 0.5 v; "image" v.

The ordinal of an ordinary weight is its position among the official model's ``named_parameters()`` without the
architecture parameters.  Architecture matrices use 1000, 1001, ...; train images 2000 and valid images 2001 (a second
step uses 2002 and 2003).
"""

import math

import numpy as np
import torch

RULE = (
    "v = sin(2*pi*((7*i*i + 13*i) % 1009)/1009 + 1.3*ordinal) at flat index i; matrix: sqrt(2/prod(shape[1:]))*v; "
    "scale: 1 + 0.1*v; bias: 0.1*v; arch: 0.5*v; image: v; ordinal of a weight = its position in named_parameters() "
    "without the architecture parameters; arch ordinals 1000...; images 2000..."
)
FIRST_ARCH_ORDINAL = 1000
FIRST_IMAGE_ORDINAL = 2000


def fill(ordinal, shape, kind):
    """The float64 tensor of this shape that the rule gives to an ordinal; see the module's docstring for the kinds."""
    shape = tuple(int(size) for size in shape)
    index = np.arange(math.prod(shape), dtype=np.int64)
    phase = 2 * np.pi * ((7 * index * index + 13 * index) % 1009) / 1009 + 1.3 * ordinal
    value = np.sin(phase)
    if kind == "matrix":
        value = math.sqrt(2 / math.prod(shape[1:])) * value
    elif kind == "scale":
        value = 1 + 0.1 * value
    elif kind == "bias":
        value = 0.1 * value
    elif kind == "arch":
        value = 0.5 * value
    elif kind != "image":
        raise ValueError(f"unknown kind {kind!r}")
    return torch.from_numpy(value).reshape(shape)


def kind_of(name, shape):
    """The kind of an ordinary weight, from its name and shape."""
    if len(shape) >= 2:
        return "matrix"
    return "scale" if name.rsplit(".", 1)[-1] == "weight" else "bias"


def fill_weights(named_weights):
    """Write the rule's values into ordinary weights, given as (name, tensor) pairs in the official order."""
    with torch.no_grad():
        for ordinal, (name, tensor) in enumerate(named_weights):
            tensor.copy_(fill(ordinal, tensor.shape, kind_of(name, tensor.shape)))


def images(ordinal, batch, size):
    """A batch of square RGB images."""
    return fill(ordinal, (batch, 3, size, size), "image")


def train_labels(batch, classes=10):
    """The labels that go with train images."""
    return torch.arange(batch) % classes


def valid_labels(batch, classes=10):
    """The labels that go with valid images."""
    return (3 * torch.arange(batch) + 1) % classes


def fixed_sample(row, columns, pass_index):
    """A point of the simplex, used in place of a random Dirichlet draw.

    ``row`` counts the draws of one forward pass (normal rows first, then reduction rows), ``pass_index`` counts the
    forward passes of the step from 0.
    """
    column = torch.arange(columns)
    positive = (1 + (3 * row + 5 * column + 2 * pass_index) % 7).to(torch.float64)
    return positive / positive.sum()


def exponentials(pass_index, shape):
    """Positive numbers, used in place of random exponential ones."""
    row, column = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    return (1 + (3 * row + 5 * column + 2 * pass_index) % 7).to(torch.float64) / 3
