"The runner: a lesson that fails, hangs or skips a cell is a failure that names the cell."

import json
import os
import sys

import pytest
from nbformat import v4, write

from lessons import digest, find, read
from run import FORKING, Task, fold, longest_first, main, run

CHECK = """\
#| hide
#| check: double
from coursekit.exercises import exercise
def same(x): return x
def square(x): return x * x
@exercise(same, square)
def check_double(answer):
    assert answer(3) != 3, "it gives the number itself."
    assert answer(3) == 6, f"for 3 it gives {answer(3)}."
"""
LEARNER = "#| exercise: double\ndef double(x): ...\ncheck_double(double)"
FOLDED = "<details><summary>Solution</summary>\n\n```python\ndef double(x): return 2 * x\n```\n\n</details>"


@pytest.fixture
def lesson(tmp_path):
    def make(*cells, name="01_try.ipynb", tags=()):
        made = [
            v4.new_markdown_cell(c) if c.startswith(("<", "# T")) else v4.new_code_cell(c)
            for c in cells
        ]
        if tags:
            made[-1].metadata["tags"] = list(tags)
        write(v4.new_notebook(cells=made), tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture(params=["own", "forked"])
def kernels(request, monkeypatch):
    "As one at a time has them, and as many have them."
    if request.param == "forked":
        if sys.platform != "linux":
            pytest.skip("kernels are forked on Linux only")
        monkeypatch.setenv(FORKING, "1")


def test_a_forked_kernel_is_like_a_fresh_one(lesson, kernels, monkeypatch):
    monkeypatch.setenv("SOMETHING", "else")
    asks = """import os, sys, subprocess, random, numpy
assert os.environ["SOMETHING"] == "else" and os.environ["COURSEKIT_RUNNER"] == "1"
assert "torch" not in globals() and not {"pandas", "matplotlib.pyplot"} & set(sys.modules)
assert subprocess.run(["false"]).returncode == 1 and sys.stdin.read() == ""
print(os.getcwd(), random.random(), numpy.random.rand())"""
    path = lesson(asks)
    said = []
    for _ in range(2):
        nb, result = run(path)
        assert not result.failure, result.failure
        said.append(nb.cells[0].outputs[0].text.split())
    one, two = said
    assert one[0] == two[0] == str(path.parent) and one[1] != two[1] and one[2] != two[2]


def test_a_good_lesson(lesson, monkeypatch):
    monkeypatch.delenv("COURSEKIT_MIRROR", raising=False)
    path = lesson(
        "# T", "x = 1\nassert x == 1", "", "#| headline\nprint('first')\nprint(f'{x + 1} apples')"
    )
    nb, result = run(path)
    assert (result.failure, result.cells, result.checks, result.headline) == ("", 2, 1, "2 apples")
    record = nb.metadata["coursekit"]
    assert (record["sources"], record["mirror"]) == (digest(nb), False)
    assert abs(record["seconds"] - result.seconds) <= 0.5
    assert all(c.execution_count is None for c in nb.cells if c.cell_type == "code")


def test_an_error_names_the_cell_and_shows_the_traceback(lesson):
    _, result = run(lesson("x = 1", "#| claim: F001\ny = x / 0", "print('never')"))
    assert "code cell 2 of 3" in result.failure and "'y = x / 0'" in result.failure
    assert "ZeroDivisionError: division by zero" in result.failure
    assert "\x1b" not in result.failure
    assert result.cells == 1


def test_a_hung_cell_is_stopped(lesson, kernels):
    _, result = run(lesson("x = 1", "while True: x += 1"), timeout=2)
    assert "code cell 2 of 2" in result.failure and "longer than 2 s" in result.failure
    assert "KeyboardInterrupt" in result.failure and "while True: x += 1" in result.failure
    assert result.seconds < 30


def test_a_cell_that_ignores_the_interrupt_is_stopped_too(lesson, kernels):
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
    _, result = run(lesson(deaf), timeout=2)
    assert "longer than 2 s" in result.failure and "does not answer" in result.failure
    assert result.seconds < 30


def test_a_dead_kernel_is_named(lesson, kernels):
    _, result = run(lesson("import os", "os._exit(1)"))
    assert "code cell 2 of 2" in result.failure and "killed the kernel" in result.failure


@pytest.mark.parametrize("tag", ["skip-execution", "raises-exception"])
def test_a_tag_does_not_excuse_a_cell(lesson, tag):
    _, result = run(lesson("x = 1", "1 / 0", tags=[tag]))
    assert tag in result.failure and "code cell 2 of 2" in result.failure


def test_eval_false_does_not_excuse_a_cell(lesson):
    _, result = run(lesson("x = 1", "#| eval: false\n1 / 0"))
    assert "eval: false" in result.failure and "'1 / 0'" in result.failure


def test_a_lesson_without_code_is_a_failure(lesson):
    _, result = run(lesson("# T"))
    assert "nothing was run" in result.failure


def test_each_lesson_has_a_kernel_of_its_own(lesson, kernels):
    run(lesson("leaked = 1", name="01_first.ipynb"))
    _, result = run(lesson("print(leaked)", name="02_second.ipynb"))
    assert "NameError" in result.failure


def test_imports_and_the_setup_line_are_folded():
    cells = [
        "#| export\nimport os\n\nfrom re import sub",
        "import os\nlesson_setup()",
        "os.sep",
        "",
    ]
    nb = fold(v4.new_notebook(cells=[v4.new_code_cell(c) for c in cells]))
    folded = [bool(c.metadata.get("jupyter")) for c in nb.cells]
    assert folded == [True, True, False, False]


def test_a_proof_runs_counts_and_is_folded(lesson):
    path = lesson("x = 1", "#| proof\n#| claim: F001\nassert x == 1\nassert x > 0", "x")
    nb, result = run(path)
    assert (result.failure, result.cells, result.checks) == ("", 3, 2)
    assert [c.metadata.get("jupyter") for c in nb.cells] == [None, {"source_hidden": True}, None]
    assert nb.metadata["coursekit"]["sources"] == digest(read(path))
    _, result = run(lesson("x = 1", "#| proof\nassert x == 2"))
    assert "code cell 2 of 2" in result.failure and "'assert x == 2'" in result.failure


def test_magics_are_no_trouble(lesson):
    path = lesson(
        "%%bash\necho hi",
        "%matplotlib inline\nx = 1\nassert x == 1",
        "f = !echo a\nassert f == ['a']",
    )
    _, result = run(path)
    assert (result.failure, result.cells, result.checks) == ("", 3, 2)


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "01_broken.ipynb").write_text("{")
    with pytest.raises(SystemExit, match=r"01_broken.ipynb is no notebook"):
        run(tmp_path / "01_broken.ipynb")


def test_an_old_copy_is_no_result_of_this_run(lesson, tmp_path, capsys):
    lesson("x = 1")
    (tmp_path / "out" / "nbs").mkdir(parents=True)
    (tmp_path / "out" / "nbs" / "09_gone.ipynb").write_text("")
    assert main(["--nbs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert [p.name for p in (tmp_path / "out" / "nbs").iterdir()] == ["01_try.ipynb"]
    with pytest.raises(SystemExit, match="nothing has been run yet"):
        main(["--table", "--out", str(tmp_path / "elsewhere")])


def test_exercises_are_proved(lesson):
    _, result = run(lesson("x = 1", CHECK, LEARNER, FOLDED))
    assert (result.failure, result.exercises) == ("", 4)


@pytest.mark.parametrize(
    ("check", "solution", "words"),
    [
        (CHECK, FOLDED.replace("2 * x", "3 * x"), "the worked solution fails: for 3 it gives 9."),
        (CHECK, FOLDED.replace("def double(x): return 2 * x", "double = 1"), "write a function"),
        (CHECK.replace("(same, square)", "(same)"), FOLDED, "at least 2"),
        (CHECK.replace("x * x", "2 * x"), FOLDED, "not noticed: ['square']"),
        (CHECK, "<details></details>", "has no solution"),
    ],
)
def test_a_weak_exercise_is_a_failure(lesson, check, solution, words):
    _, result = run(lesson("x = 1", check, LEARNER, solution))
    assert words in result.failure


def test_an_unknown_lesson_is_named_with_those_there_are(lesson):
    folder = lesson("x = 1").parent
    assert find("1", folder).stem == find("01_try", folder).stem == "01_try"
    with pytest.raises(
        SystemExit, match=r"lesson '77' is not there(.|\n)*01_try(.|\n)*make lesson"
    ):
        main(["77", "--nbs", str(folder)])


def test_inplace_never_uses_the_mirror(lesson, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSEKIT_MIRROR", str(tmp_path))
    path = lesson("import os\nprint(os.environ.get('COURSEKIT_MIRROR', 'no mirror'))")
    assert main(["01", "--inplace", "--nbs", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "COURSEKIT_MIRROR" in os.environ  # for whoever comes after
    assert read(path).cells[0].outputs[0].text == "no mirror\n"
    assert read(path).metadata["coursekit"]["mirror"] is False
    assert "01_try" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_lesson_with_photos_of_the_mirror_runs_both_ways(
    lesson, tmp_path, monkeypatch, capsys, jobs
):
    monkeypatch.setenv("COURSEKIT_MIRROR", str(tmp_path))
    lesson("import os\nprint('URLs.BEARS', os.environ['COURSEKIT_MIRROR'])")
    lesson("import os\n# URLs.SCENES\nprint(os.environ.get('COURSEKIT_MIRROR'))", name="02_b.ipynb")
    lesson("1", name="03_c.ipynb")
    options = ["--all", "--jobs", jobs, "--nbs", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(options) == 1
    said = capsys.readouterr().out
    assert "02_b, no mirror" in said and "03_c, no mirror" not in said
    assert "FAILED without a mirror, 01_try: code cell 1 of 1" in said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    failed = {r["lesson"]: r["failure"] for r in results}
    assert list(failed) == ["01_try", "01_try, no mirror", "02_b", "02_b, no mirror", "03_c"]
    assert "KeyError" in failed["01_try, no mirror"] and not failed["01_try"]
    assert os.environ["COURSEKIT_MIRROR"] == str(tmp_path)
    kept = read(tmp_path / "out" / "nbs" / "02_b.ipynb")
    assert kept.metadata["coursekit"]["mirror"] is True


def test_two_at_a_time_share_the_cores_and_are_listed_in_order(
    lesson, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    out = tmp_path / "out"
    wait = f"import os, time\nwhile not os.path.exists({str(out / 'nbs/02_b.ipynb')!r}): time.sleep(0.05)"
    lesson(wait, name="01_a.ipynb")
    lesson("import os\nprint(os.environ['OMP_NUM_THREADS'])", name="02_b.ipynb")
    assert main(["--jobs", "2", "--nbs", str(tmp_path), "--out", str(out)]) == 0
    share = max(1, os.cpu_count() // 2)
    assert read(out / "nbs" / "02_b.ipynb").cells[0].outputs[0].text == f"{share}\n"
    assert "OMP_NUM_THREADS" not in os.environ
    results = json.loads((out / "results.json").read_text())
    assert [r["lesson"] for r in results] == ["01_a", "02_b"]
    table = capsys.readouterr().out.split("\n\n")[1]
    assert table.index("01_a") < table.index("02_b")


def test_the_longest_begins_first(lesson):
    paths = [lesson("1", name=f"0{i}.ipynb") for i in range(4)]
    for path, seconds in zip(paths, (5, 90, None, 30), strict=True):
        notebook = read(path)
        notebook.metadata["coursekit"] = {} if seconds is None else {"seconds": seconds}
        write(notebook, path)
    tasks = [Task(path, None, 9) for path in paths]
    assert longest_first(tasks) == [1, 3, 0, 2]


def test_a_failed_lesson_keeps_its_committed_outputs(lesson, tmp_path, capsys):
    path = lesson("1 / 0")
    before = path.read_bytes()
    assert main(["01", "--inplace", "--nbs", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert path.read_bytes() == before
    assert "FAILED" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.part"))
