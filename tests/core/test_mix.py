"""The cut at the mix."""

import pytest
import torch

from gapless.core.mix import Mix, one_hot


def parts() -> tuple[torch.Tensor, torch.Tensor, Mix]:
    alpha = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    beta = torch.tensor([5.0, 6.0], requires_grad=True)
    return alpha, beta, Mix(2 * alpha, active=((0, 1), (1,)), gain=3 * beta, log_prob=alpha.sum())


def test_leaves_are_cut_from_the_graph_and_collect_gradients():
    _, _, mix = parts()
    leaves = mix.leaves()
    assert leaves.active == mix.active
    assert leaves.log_prob is None
    assert leaves.offset is None
    for leaf, origin in ((leaves.weight, mix.weight), (leaves.gain, mix.gain)):
        assert leaf.is_leaf
        assert leaf.requires_grad
        assert torch.equal(leaf, origin)
        assert leaf.data_ptr() != origin.data_ptr()


def test_gradients_at_the_leaves_go_on_to_the_parameters():
    alpha, beta, mix = parts()
    leaves = mix.leaves()
    (leaves.weight.sum() * 7).backward()
    found = leaves.gradient()
    assert torch.equal(found["weight"], torch.full((2, 2), 7.0))
    assert torch.equal(found["gain"], torch.zeros(2))
    mix.backward(found)
    assert torch.equal(alpha.grad, torch.full((2, 2), 14.0))
    assert torch.equal(beta.grad, torch.zeros(2))


def test_several_passes_over_one_mix_add_up():
    alpha, _, mix = parts()
    for _ in range(2):
        mix.backward({"weight": torch.ones(2, 2)})
    assert torch.equal(alpha.grad, torch.full((2, 2), 4.0))


def test_a_mix_without_parameters_takes_gradients_in_silence():
    Mix(torch.ones(1, 2)).backward({"weight": torch.ones(1, 2)})


def test_detached_and_moved():
    _, _, mix = parts()
    plain = mix.detach()
    assert not plain.weight.requires_grad
    assert not plain.gain.requires_grad
    assert mix.to(dtype=torch.float64).gain.dtype == torch.float64
    assert mix.to(dtype=torch.float64).weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_leaves_rows_of_absent_decisions_empty(dtype):
    mix = one_hot([1, None, 0], 3, dtype=dtype)
    assert torch.equal(mix.weight, torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=dtype))
    assert mix.active == ((1,), (), (0,))
