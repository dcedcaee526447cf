"""SOAP: Adam, in the axes of the gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srcli.weights.training.soap import Soap


def descend(optimiser, parameter, loss_of, steps):
    for _ in range(steps):
        optimiser.zero_grad()
        loss = loss_of(parameter)
        loss.backward()
        optimiser.step()
    return float(loss_of(parameter).detach())


@pytest.mark.parametrize("shape", [(7,), (7, 1, 1, 1), (1,)])
def test_vectors_move_as_with_adam(shape):
    """They have no axes to turn."""
    torch.manual_seed(0)
    start, target = torch.randn(shape), torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())

    def loss_of(parameter):
        return ((parameter - target) ** 4).sum()

    descend(Soap([ours], lr=0.01, betas=(0.9, 0.99)), ours, loss_of, 50)
    descend(torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99)), theirs, loss_of, 50)
    torch.testing.assert_close(ours, theirs)


def long_valley():
    """A loss that is steep along some sums of a convolution's weights, and flat along others."""
    torch.manual_seed(0)
    rows, inputs, places = (torch.linalg.qr(torch.randn(n, n)).Q for n in (6, 2, 9))
    columns = torch.kron(inputs, places)
    steepness = torch.logspace(0, -2, 6)[:, None] * torch.logspace(0, -2, 18)
    target = torch.randn(6, 2, 3, 3)

    def loss_of(weights):
        difference = rows.T @ (weights - target).reshape(6, 18) @ columns
        return (steepness * difference**2).sum()

    return loss_of


def test_it_goes_down_a_valley_that_is_oblique():
    loss_of = long_valley()
    left = {}
    for optimiser in (Soap, torch.optim.Adam):
        weights = nn.Parameter(torch.zeros(6, 2, 3, 3))
        left[optimiser] = descend(optimiser([weights], lr=0.02), weights, loss_of, 300)
    assert left[Soap] < 0.05 * left[torch.optim.Adam]


def test_another_power_goes_on_where_the_valley_is_flat():
    left = {}
    for power in (0.5, 0.75):
        weights = nn.Parameter(torch.zeros(6, 2, 3, 3))
        left[power] = descend(Soap([weights], lr=0.01, power=power), weights, long_valley(), 400)
    assert left[0.75] < 0.1 * left[0.5]


def test_axes_stay_at_right_angles_in_order():
    weights = nn.Parameter(torch.zeros(6, 2, 3, 3))
    optimiser = Soap([weights], lr=0.02, every=5)
    descend(optimiser, weights, long_valley(), 101)
    state = optimiser.state[weights]
    assert [axes.shape[-1] for axes in state["axes"]] == [6, 2, 9]  # not 18 x 18: that is slow
    for (moment,), (axes,) in zip(state["moments"], state["axes"], strict=True):
        torch.testing.assert_close(axes.T @ axes, torch.eye(len(axes)), atol=1e-5, rtol=0)
        along = (axes * (moment @ axes)).sum(dim=0)
        assert float(along[0]) == pytest.approx(float(along.max()))


def test_those_of_one_shape_do_not_mix():
    torch.manual_seed(0)
    targets = torch.randn(3, 5, 4)
    together = [nn.Parameter(torch.zeros(5, 4)) for _ in targets]
    alone = [nn.Parameter(torch.zeros(5, 4)) for _ in targets]
    optimisers = [Soap(together, lr=0.02), *(Soap([each], lr=0.02) for each in alone)]
    for _ in range(40):
        for weights in (together, alone):
            for each, target in zip(weights, targets, strict=True):
                each.grad = (each.detach() - target) ** 3
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_first_step_only_looks():
    weights, bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))
    optimiser = Soap([weights, bias], lr=0.1)
    (weights.sum() + bias.sum()).backward()
    optimiser.step()
    assert torch.equal(weights, torch.ones(3, 4))
    assert not torch.equal(bias, torch.ones(3))


def test_what_has_no_gradient_stays():
    weights = nn.Parameter(torch.ones(3, 4))
    optimiser = Soap([weights])
    assert optimiser.step() is None
    assert torch.equal(weights, torch.ones(3, 4))


def test_a_closure_is_called():
    weights = nn.Parameter(torch.ones(3))
    optimiser = Soap([weights], lr=0.1)

    def closure():
        loss = (weights**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimiser.step(closure) == 3
    assert float(weights.detach().max()) == pytest.approx(0.9)
