"What lesson 02 does not already check: bad input to what it exports, and nets of other sizes."

import pytest
import torch
from torch import nn

from coursekit.convolutions import ConvLayer, simple_cnn


def kinds(layer):
    return [type(part) for part in layer]


# ---------------------------------------------------------------- ConvLayer
def test_layer_has_norm_and_activation_and_no_bias():
    layer = ConvLayer(3, 8)
    assert kinds(layer) == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert layer[0].bias is None and layer[0].weight.shape == (8, 3, 3, 3)


def test_layer_without_norm_has_a_bias_unless_told():
    assert ConvLayer(3, 8, norm=False)[0].bias is not None
    assert ConvLayer(3, 8, norm=False, bias=False)[0].bias is None
    assert ConvLayer(3, 8, bias=True)[0].bias is not None
    assert kinds(ConvLayer(3, 8, norm=False, act_cls=None)) == [nn.Conv2d]
    assert kinds(ConvLayer(3, 8, act_cls=nn.GELU))[-1] is nn.GELU


@pytest.mark.parametrize("ks", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_layer_keeps_the_size_up_to_the_stride(ks, stride):
    x = torch.zeros(2, 1, 13, 10)
    wanted = (2, 4, -(-13 // stride), -(-10 // stride))
    assert ConvLayer(1, 4, ks, stride)(x).shape == wanted


def test_layer_takes_a_padding():
    assert ConvLayer(1, 2, padding=0)(torch.zeros(2, 1, 9, 9)).shape == (2, 2, 7, 7)


@pytest.mark.parametrize("wrong", [{"ni": 0}, {"nf": -1}, {"ks": 0}, {"stride": 0}])
def test_layer_refuses_sizes_below_one(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is "):
        ConvLayer(**({"ni": 1, "nf": 1} | wrong))


# ---------------------------------------------------------------- simple_cnn
@pytest.mark.parametrize("places", [1, 2, 3])
@pytest.mark.parametrize("size", [(28, 28), (40, 65), (5, 7)])
def test_net_takes_pictures_of_any_size(places, size):
    net = simple_cnn((3, 4, 6), bn=True, n_out=5, places=places)
    assert net(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_net_without_a_linear_layer_gives_its_last_channels():
    net = simple_cnn((1, 4, 10), bn=True)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    # as in fastai, the norm of the last layer is left out
    assert [nn.BatchNorm2d in kinds(layer) for layer in net[:2]] == [True, False]
    assert not any(isinstance(part, nn.Linear) for part in net)


def test_net_has_a_norm_in_each_layer_only_if_asked():
    def norms(net):
        return sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())

    assert norms(simple_cnn((1, 4, 8, 8), n_out=3)) == 0
    assert norms(simple_cnn((1, 4, 8, 8), n_out=3, bn=True)) == 3


def test_net_takes_kernels_strides_and_activation():
    net = simple_cnn((1, 2, 3), [5, 1], [1, 3], n_out=2, act_cls=nn.Tanh)
    assert [layer[0].kernel_size for layer in net[:2]] == [(5, 5), (1, 1)]
    assert [layer[0].stride for layer in net[:2]] == [(1, 1), (3, 3)]
    assert kinds(net[0]) == [nn.Conv2d, nn.Tanh]


def test_net_learns_one_batch_by_heart():
    torch.manual_seed(0)
    x, y = torch.randn(16, 1, 12, 12), torch.arange(16) % 4
    net = simple_cnn((1, 8, 16), bn=True, n_out=4, places=2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05


def test_net_refuses_lists_that_do_not_fit():
    with pytest.raises(ValueError, match="two numbers at least"):
        simple_cnn([3])
    with pytest.raises(ValueError, match="2 layers, but 1 kernel_szs"):
        simple_cnn((1, 2, 3), [3])
    with pytest.raises(ValueError, match="2 layers, but 3 strides"):
        simple_cnn((1, 2, 3), strides=[1, 2, 2])
    with pytest.raises(ValueError, match="nf is 0"):
        simple_cnn((1, 0))
