"What lesson 01 does not already check: bad input to the exported functions, and torch.optim.SGD."

import base64
import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from coursekit.basics import (
    BasicOptim,
    MajorityBaseline,
    MeanBaseline,
    assert_shape,
    frame_slider,
    plot_function,
    show_image,
    show_images,
    small_figures,
    tensor,
    to_np,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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


def test_assert_shape():
    x = torch.zeros(2, 3)
    assert assert_shape(x, 2, 3) is x and assert_shape(x, (None, 3)) is x
    assert assert_shape(np.zeros(4), 4).size == 4
    assert_shape(torch.tensor(1.0))
    with pytest.raises(AssertionError, match=r"shape \(2, 3\), expected \(any, 4\)"):
        assert_shape(x, None, 4)
    with pytest.raises(AssertionError, match=r"expected \(2,\)"):
        assert_shape(x, 2)


# ---------------------------------------------------------------- pictures
@pytest.mark.parametrize("shape", [(8, 6), (1, 8, 6), (3, 8, 6), (8, 6, 3), (8, 6, 1), (8, 6, 4)])
def test_show_image_takes_every_layout(shape):
    ax = show_image(torch.rand(shape))
    assert ax.images[0].get_array().shape[:2] == (8, 6)


@pytest.mark.parametrize("shape", [(5,), (1, 3, 8, 6)])
def test_show_image_refuses(shape):
    with pytest.raises(ValueError, match="a picture has shape"):
        show_image(torch.rand(shape))


@pytest.mark.parametrize("shape", [(2, 18, 16), (4, 18, 16), (13, 18, 16), (18, 16, 5)])
def test_show_image_chooses_channels_and_says_so(shape):
    bands = torch.rand(shape)
    first = bands.movedim(0, -1) if shape[-1] == 16 else bands
    n = first.shape[-1]
    ax = show_image(bands)
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (18, 16, 3) and ax.get_xlabel().endswith(f"of {n}")
    assert np.array_equal(shown[..., : min(n, 3)], first[..., :3].numpy())
    chosen = np.asarray(show_image(bands, channels=(1, 0, 1)).images[0].get_array())
    assert np.array_equal(chosen, first[..., [1, 0, 1]].numpy())
    one = show_image(bands, channels=1)
    assert np.array_equal(one.images[0].get_array(), first[..., 1].numpy())
    with pytest.raises(ValueError, match=f"one to three of {n}"):
        show_image(bands, channels=(0, 1, 13))


def test_show_image_draws_where_it_is_told():
    ax = plt.subplots()[1]
    assert show_image(Image.new("L", (4, 4)), ax=ax, title="four") is ax
    assert show_image(Image.new("L", (4, 4)), ctx=ax) is ax


def test_show_images():
    axes = show_images(torch.rand(5, 4, 4), nrows=2, titles=list("abcde"))
    assert axes.shape == (2, 3) and sum(len(ax.images) for ax in axes.flat) == 5
    assert show_images([torch.rand(4, 4)] * 5, ncols=2).shape == (3, 2)
    with pytest.raises(ValueError, match="no pictures"):
        show_images([])
    with pytest.raises(ValueError, match="2 pictures, but 1 titles"):
        show_images(torch.rand(2, 4, 4), titles=["one"])


def test_plot_function():
    ax = plot_function(torch.sin, "x", "y", title="sine", min=0, max=1)
    assert ax.lines[0].get_xdata()[-1] == 1 and ax.get_ylabel() == "y"
    with pytest.raises(ValueError, match=r"made shape \(\)"):
        plot_function(torch.sum)


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


# ---------------------------------------------------------------- the slider
def draw(fig, value):
    fig.subplots().plot([0, value])
    return f'a line to {value}, "rising" & <steep>'


def test_frame_slider_is_tied_together():
    slider = frame_slider(draw, [1, 2, 3], "the end", start=1)
    assert slider.slider.index == slider.stack.selected_index == 1
    assert slider.link.source == (slider.slider, "index")
    assert slider.link.target == (slider.stack, "selected_index")
    first = slider.stack.children[0].value
    assert "a line to 1, &quot;rising&quot; &amp; &lt;steep&gt;" in first
    picture = Image.open(io.BytesIO(base64.b64decode(first.partition("base64,")[2][:-2])))
    assert picture.format == "PNG" and picture.width > 300


def test_frame_slider_shows_without_widgets():
    slider = frame_slider(draw, [1, 2, 3], "the end", format="{:.1f} m".format)
    data = slider._repr_mimebundle_()
    assert data["text/plain"] == "A slider over the end, 1.0 m to 3.0 m: run the lesson to move it"
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).format == "PNG"
    assert "application/vnd.jupyter.widget-view+json" in data


def test_frame_slider_frames_are_laid_out_alike_and_closed():
    places = []

    def grows(fig, value):
        ax = fig.subplots()
        ax.plot([0, 10.0**value])
        places.append(ax)
        return "a line"

    before = len(plt.get_fignums())
    frame_slider(grows, [0, 6], "the height")
    assert np.allclose(places[0].get_position().bounds, places[1].get_position().bounds)
    assert len(plt.get_fignums()) == before


def test_frame_slider_refuses():
    with pytest.raises(ValueError, match="no values"):
        frame_slider(draw, [], "nothing")
    for alt in (None, "", "  "):
        with pytest.raises(ValueError, match="no alt text for 1"):
            frame_slider(lambda fig, value, alt=alt: alt, [1], "nothing")


# ---------------------------------------------------------------- figures in a notebook
def test_small_figures_outside_a_notebook():
    assert small_figures() is None


def test_small_figures_has_the_last_word(monkeypatch):
    registered, kinds = [], {}
    formatter = SimpleNamespace(for_type=kinds.__setitem__)
    shell = SimpleNamespace(
        display_formatter=SimpleNamespace(formatters={"image/png": formatter}),
        events=SimpleNamespace(register=lambda event, action: registered.append((event, action))),
    )
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    small_figures(colours=8)
    ((event, action),) = registered
    assert event == "post_run_cell" and not kinds
    action()
    fig, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).random((20, 20)))
    picture = Image.open(io.BytesIO(kinds[plt.Figure](fig)))
    assert picture.format == "PNG" and picture.mode == "P" and len(picture.getcolors()) <= 8
