"The tools of a notebook: pictures, curves, sliders, shapes, and figures that are stored small."

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

from coursekit.notebook_tools import (
    assert_shape,
    error_from,
    frame_slider,
    lesson_setup,
    plot_function,
    show_image,
    show_images,
    small_figures,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# ---------------------------------------------------------------- errors and shapes
def test_error_from_prints_lines_that_fit(capsys):
    def complain():
        raise ValueError("word " * 40 + "\nand more")

    assert error_from(complain, ValueError).endswith("and more")
    printed = capsys.readouterr().out
    assert printed.startswith("ValueError: word") and "more" not in printed
    assert max(map(len, printed.splitlines())) <= 88


def test_error_from_wants_the_error_it_expects(capsys):
    with pytest.raises(AssertionError, match="nothing went wrong"):
        error_from(lambda: None, ValueError)
    with pytest.raises(ZeroDivisionError):
        error_from(lambda: 1 / 0, ValueError)

    def silent():
        raise ValueError

    assert error_from(silent, ValueError) == "" and "ValueError" in capsys.readouterr().out


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


def stored_by(monkeypatch):
    "What a notebook stores of a figure: a function of the figure and the cell's source."
    registered, bundles = {}, {}
    theirs = {plt.Figure: "as the notebook draws"}
    shell = SimpleNamespace(
        display_formatter=SimpleNamespace(
            formatters={"image/png": theirs},
            mimebundle_formatter=SimpleNamespace(for_type=bundles.__setitem__),
        ),
        events=SimpleNamespace(register=registered.__setitem__),
    )
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    small_figures(colours=8)
    assert not bundles and theirs
    registered["post_run_cell"]()
    registered["post_run_cell"]()
    assert not theirs

    def stored(fig, cell=""):
        registered["pre_run_cell"](SimpleNamespace(raw_cell=cell))
        return bundles[plt.Figure](fig)

    return stored


def test_small_figures_has_the_last_word(monkeypatch):
    stored = stored_by(monkeypatch)
    fig, ax = plt.subplots()
    ax.imshow(np.random.default_rng(0).random((20, 20)), cmap="gray")
    ((kind, data),) = stored(fig).items()
    picture = Image.open(io.BytesIO(data))
    assert kind == "image/png" and picture.format == "PNG"
    assert picture.mode == "P" and len(picture.getcolors()) <= 8


def test_photographs_keep_their_colours(monkeypatch):
    stored = stored_by(monkeypatch)
    fig, ax = plt.subplots()
    y, x = np.mgrid[:200, :200] / 200
    ax.imshow(np.stack([x, y, 1 - x * y], -1))
    ((kind, data),) = stored(fig).items()
    picture = Image.open(io.BytesIO(data))
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)
    assert kind == "image/jpeg" and picture.format == "JPEG"
    assert np.abs(np.asarray(picture, int) - drawn).mean() < 3
    # the name of the file in which a figure is kept decides
    assert list(stored(fig, "#| picture: a.png\n#| fig-alt: a\n1")) == ["image/png"]
    assert list(stored(fig, "#| picture: a.jpg\n1")) == ["image/jpeg"]
    assert list(stored(fig, None)) == ["image/jpeg"]


def test_lesson_setup():
    threads = torch.get_num_threads()
    with matplotlib.rc_context():
        try:
            lesson_setup(threads=1, figure_dpi=90)
            assert torch.get_num_threads() == 1
            assert plt.rcParams["figure.dpi"] == 90 and plt.rcParams["image.cmap"] == "gray_r"
        finally:
            torch.set_num_threads(threads)
