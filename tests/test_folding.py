"Batch norms folded into convolutions, against the model as it was."

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coursekit.folding import fold_batch_norm


def norms(model):
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def trained(*layers):
    "Layers whose norms hold numbers such as training leaves."
    model, chance = nn.Sequential(*layers), torch.Generator().manual_seed(0)
    for norm in norms(model):
        norm.running_mean.uniform_(-1, 1, generator=chance)
        norm.running_var.uniform_(0.2, 3, generator=chance)
        if norm.affine:
            norm.weight.data.uniform_(-2, 2, generator=chance)
            norm.bias.data.uniform_(-1, 1, generator=chance)
    return model


CASES = {
    "bias": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)),
    "no bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)),
    "groups": (nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU()),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, dilation=2), nn.BatchNorm2d(4)),
    "padded around": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(6)),
    "no numbers of its own": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)),
    "twice": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1), nn.BatchNorm2d(3)),
}


@pytest.mark.parametrize("name", CASES)
def test_folds_with_the_same_answers(name):
    torch.manual_seed(0)
    model, x = trained(*CASES[name]), torch.randn(3, 4, 10, 12)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norm(model, x)
    assert not norms(folded) and not folded.training and len(norms(model)) > 0
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_one_and_three_axes():
    for conv, norm, shape in (
        (nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), (4, 2, 9)),
        (nn.Conv3d(2, 5, 3), nn.BatchNorm3d(5), (2, 2, 5, 5, 5)),
    ):
        model, x = trained(conv, norm), torch.randn(shape)
        folded = fold_batch_norm(model, x)
        assert not norms(folded)
        torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-4)


class Used(nn.Module):
    "The output of the convolution goes somewhere else too, in one of several ways."

    def __init__(self, how):
        super().__init__()
        self.how, self.conv, self.norm = how, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        if self.how == "before":
            y.relu_()
        z = self.norm(y)
        return {
            "before": lambda: z,
            "sum": lambda: y + z,
            "list": lambda: torch.stack([y, z]),
            "out": lambda: (y, {"norm": z}),
            "view": lambda: z + y.view(-1)[0],
            "again": lambda: z + self.norm(y),
        }[self.how]()


@pytest.mark.parametrize("how", ["before", "sum", "list", "out", "view", "again"])
def test_leaves_what_is_used_elsewhere(how):
    torch.manual_seed(0)
    model, x = trained(Used(how)), torch.randn(2, 3, 6, 6)
    folded, wanted = fold_batch_norm(model, x), model.eval()(x)
    assert len(norms(folded)) == 1
    torch.testing.assert_close(folded(x), wanted)


def test_leaves_other_layers_and_computed_weights():
    torch.manual_seed(0)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    model = trained(
        *(nn.ConvTranspose2d(3, 3, 2), nn.BatchNorm2d(3), normed, nn.BatchNorm2d(3)),
        *(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
    )
    x = torch.randn(2, 3, 6, 6)
    folded = fold_batch_norm(model, x)
    assert len(norms(folded)) == 3
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-4)


def test_keeps_type_memory_order_and_gradients():
    model = trained(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).double()
    model = model.to(memory_format=torch.channels_last).requires_grad_(False)
    folded = fold_batch_norm(model, torch.randn(2, 3, 6, 6, dtype=torch.double))
    weight = folded[0].weight
    assert weight.dtype == torch.double and not weight.requires_grad
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
