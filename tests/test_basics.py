"What lesson 01 does not already check: bad input to the exported functions, and torch.optim.SGD."

import numpy as np
import pytest
import torch
from PIL import Image

from coursekit.basics import BasicOptim, MajorityBaseline, MeanBaseline, tensor, to_np


# ---------------------------------------------------------------- tensors
def test_tensor_copies():
    array, original = np.zeros(3), torch.zeros(3)
    tensor(array)[0] = 1
    tensor(original)[0] = 1
    assert array[0] == 0 and original[0] == 0


def test_tensor_keeps_kind_and_takes_options():
    assert tensor(np.arange(3)).dtype == torch.int64
    assert tensor(np.float64(0.5)).dtype == torch.float32
    assert tensor(np.zeros(2), dtype=torch.float64).dtype == torch.float64
    assert tensor(torch.ones(2), dtype=torch.int32).dtype == torch.int32
    weight = tensor(1.0, 2.0, requires_grad=True)
    assert weight.requires_grad and weight.is_leaf
    copy = tensor(weight)
    assert not copy.requires_grad


def test_tensor_of_a_colour_picture():
    assert tensor(Image.new("RGB", (4, 3))).shape == (3, 4, 3)


@pytest.mark.parametrize("x", ["seven", [[1], "two"], [[1, 2], [3]]])
def test_tensor_refuses(x):
    with pytest.raises((ValueError, TypeError)):
        tensor(x)


def test_tensor_of_nothing():
    with pytest.raises(TypeError):
        tensor()
    assert tensor([]).shape == (0,)


def test_to_np():
    weight = torch.ones(2, requires_grad=True)
    assert np.array_equal(to_np(weight * 2), [2, 2])
    pair = to_np((weight, {"x": [weight]}))
    assert isinstance(pair, tuple) and np.array_equal(pair[1]["x"][0], [1, 1])
    with pytest.raises(TypeError, match="not str"):
        to_np("seven")


# ---------------------------------------------------------------- baselines
@pytest.mark.parametrize("baseline", [MajorityBaseline, MeanBaseline])
def test_baselines_refuse(baseline):
    with pytest.raises(RuntimeError, match="call fit first"):
        baseline().predict([1])
    with pytest.raises(ValueError, match="no targets"):
        baseline().fit([], torch.tensor([]))


def test_baselines_keep_kind():
    x = torch.zeros(5, 2)
    majority = MajorityBaseline().fit(x, torch.tensor([2, 7, 7, 7, 2]))
    assert majority.predict(x[:2]).tolist() == [7, 7]
    assert MajorityBaseline().fit(x, [1, 1, 0]).predict(x).shape == (5,)
    assert MeanBaseline().fit(x, [1, 2, 6]).predict(x[:1]).tolist() == [3.0]
    assert majority.predict(x[:0]).shape == (0,)


# ---------------------------------------------------------------- the optimiser
def test_basic_optim_equals_sgd():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 2), torch.nn.Linear(5, 2)
    theirs.load_state_dict(ours.state_dict())
    pairs = [
        (ours, BasicOptim(ours.parameters(), lr=0.1)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.1)),
    ]
    for _ in range(5):
        x = torch.randn(8, 5)
        for model, optimiser in pairs:
            model(x).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-7)


def test_basic_optim_passes_over_unused_parameters():
    used, unused = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimiser = BasicOptim([used, unused], lr=0.5)
    used.sum().backward()
    optimiser.step()
    assert used.item() == 0.5 and unused.item() == 1
    optimiser.zero_grad()
    assert used.grad is None


def test_basic_optim_refuses():
    parameters = iter([torch.ones(1, requires_grad=True)])
    BasicOptim(parameters, lr=0.1)
    with pytest.raises(ValueError, match="no parameters"):
        BasicOptim(parameters, lr=0.1)
    for lr in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            BasicOptim([torch.ones(1)], lr=lr)
