"""The cell space of TangleNAS: its notation, and the size of the released network."""

import pytest

from gapless.core.errors import UserError
from gapless.core.size import size_of
from gapless.spaces.entangled_cells import EXAMPLE, EntangledCells
from gapless.studies.evaluate import locate

SPACE = EntangledCells.usual()


def test_the_notation_is_that_of_the_released_code():
    arch = SPACE.parse(EXAMPLE)
    assert SPACE.write(arch) == EXAMPLE
    assert set(arch.values()) == {"sep_conv_3x3"}


def test_the_network_has_the_released_number_of_parameters():
    """198,826: the released table's ``num_params`` of the network of 3x3 separable convolutions."""
    assert (SPACE.size, SPACE.channels) == (28, 1)
    assert size_of(SPACE, SPACE.parse(EXAMPLE))["params"] == 198_826


def test_a_text_is_found_to_be_of_this_space():
    arch, space, _ = locate(EXAMPLE)
    assert (space, arch) == (SPACE, SPACE.parse(EXAMPLE))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Genotype(normal=[], reduce=[])", "is no architecture of entangled_cells, which reads Genotype"),
        (EXAMPLE.replace("sep_conv_3x3', 1", "sep_conv_3x3', 0"), "with the sources 0, 0, 1"),
        (EXAMPLE.replace("sep_conv_3x3', 1", "sep_conv_3x2', 1"), "Did you mean 'sep_conv_3x3'?"),
    ],
)
def test_what_is_no_architecture_is_told(text, told):
    with pytest.raises(UserError) as caught:
        SPACE.parse(text)
    assert told in str(caught.value)


@pytest.mark.parametrize("fields", [{"width": 0}, {"dropout": 1.0}, {"size": 4}])
def test_sizes_that_make_no_network_are_refused(fields):
    with pytest.raises(UserError, match=f"`{next(iter(fields))}` must be at least"):
        EntangledCells(**fields)
