"What `from coursekit.all import *` loads, and what it leaves until it is used."

import pickle
import subprocess
import sys

import pytest

SLOW = {
    *("matplotlib", "pandas", "torchvision", "ipywidgets", "IPython", "sklearn", "scipy", "timm"),
    *("requests", "urllib3", "tqdm", "filelock", "ddgs"),
}


def fresh(program: str) -> str:
    "What a new process prints that runs `program`."
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_slow_is_imported():
    line = "from coursekit.all import *"
    loaded = fresh(
        f"import sys, torch; before = set(sys.modules); {line}; print(*set(sys.modules) - before)"
    )
    found = {name.partition(".")[0] for name in loaded.split()}
    assert "coursekit" in found and not SLOW & found, SLOW & found


PLOT = """
import os, sys
os.environ["MPLBACKEND"] = "agg"
from coursekit.all import *
plt.rcParams["lines.linewidth"] = 3
line, = plt.plot([1, 2], [3, 4])
assert line.get_linewidth() == 3
import matplotlib.pyplot
assert plt.gcf() is matplotlib.pyplot.gcf() and plt.Axes is matplotlib.pyplot.Axes
assert "subplots" in dir(plt) and plt.__file__ == matplotlib.pyplot.__file__
assert "pandas" not in sys.modules
print(pd.DataFrame({"x": [1, 2]}).x.sum(), plt.get_backend())
"""


def test_the_short_names_work():
    assert fresh(PLOT) == "3 agg"


def test_a_stand_in_is_like_its_module():
    import colorsys

    from coursekit.all import _Later, _later

    assert _later("colorsys") is colorsys  # it is there already
    stand_in = _Later("colorsys")
    assert dir(stand_in) == dir(colorsys) and stand_in.hsv_to_rgb is colorsys.hsv_to_rgb
    assert pickle.loads(pickle.dumps(stand_in)) is colorsys
    stand_in.made_up = 1
    assert colorsys.made_up == 1
    del stand_in.made_up
    assert not hasattr(colorsys, "made_up")
    with pytest.raises(AttributeError, match="'colorsys' has no attribute 'hsv'"):
        _ = stand_in.hsv
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = _Later("no_such_module").hsv


NOTEBOOK = """
import os
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

os.environ.pop("MPLBACKEND", None)  # a kernel sets its own
cells = "from coursekit.all import *; _ = plt.plot([1, 2])", "pd.DataFrame({'x': [1]})"
notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
NotebookClient(notebook, timeout=120).execute()
drawn, table = (cell.outputs for cell in notebook.cells)
assert [o.output_type for o in drawn] == ["display_data"] and "image/png" in drawn[0].data, drawn
assert "text/html" in table[0].data, table
"""


def test_a_notebook_draws_below_the_cell_that_imports():
    fresh(NOTEBOOK)
