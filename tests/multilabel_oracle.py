"""Questions about several labels to a library with the names of fastai 2, and a way to write down the answers.

    /path/to/fastai/bin/python tests/multilabel_oracle.py

writes `tests/fixtures/multilabel_oracle.json`; `test_multilabel.py` puts the same questions to coursekit. As in
`training_oracle.py`, `lib` is a namespace with the names of one library, and this file imports neither.
"""

import json
import platform
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from data_oracle import failure, written
from PIL import Image

FIXTURE = Path(__file__).parent / "fixtures" / "multilabel_oracle.json"
ROWS = ["sea sunset", "", "sea", "desert mountains sea", "trees", "sunset trees", "sea", "desert"]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """Odd numbers over 64, some of them equal, the same in every version of everything. A score of exactly 0 is not
    among them: fastai's F1 takes it for a yes, its accuracy_multi for a no; ours is no in both."""
    state, out = seed * 7919 + 1, []
    for _ in range(int(np.prod(shape))):
        state = (state * 1103515245 + 12345) % 2**31
        out.append((2 * ((state >> 16) % 129) - 127) / 64)
    return torch.tensor(out).view(shape)


def table() -> pd.DataFrame:
    names = [f"{i}.png" for i in range(len(ROWS))]
    return pd.DataFrame({"fname": names, "labels": ROWS, "is_valid": [False] * 6 + [True] * 2})


def pictures(folder: Path) -> Path:
    for i in range(len(ROWS)):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def block(lib, folder: Path, target, **columns):
    return lib.DataBlock(
        (lib.ImageBlock, target),
        splitter=lib.ColSplitter("is_valid"),
        get_x=lib.ColReader("fname", pref=f"{folder}/"),
        get_y=columns.get("get_y", lib.ColReader("labels", label_delim=" ")),
    )


# ---------------------------------------------------------------- the questions
def labels_and_targets(lib, folder: Path) -> dict:
    answers = {}
    for name, target in {
        "found": lib.MultiCategoryBlock,
        "given": lib.MultiCategoryBlock(vocab=["trees", "sunset", "sea", "mountains", "desert"]),
        "with na": lib.MultiCategoryBlock(add_na=True),
    }.items():
        dsets = block(lib, pictures(folder), target).datasets(table())
        targets = [dsets[i][1] for i in range(len(ROWS))]
        answers[name] = {
            "vocab": list(dsets.vocab),
            "dtype": str(targets[0].dtype),
            "targets": torch.stack([torch.as_tensor(each) for each in targets]).tolist(),
            "decoded": [
                list(dsets.decode((dsets[i][0], dsets[i][1]))[1]) for i in range(len(ROWS))
            ],
        }
    return answers


def encoded_targets(lib, folder: Path) -> dict:
    data, kinds = table(), ["desert", "sea"]
    for kind in kinds:
        data[kind] = [int(kind in row) for row in ROWS]
    target = lib.MultiCategoryBlock(encoded=True, vocab=kinds)
    dsets = block(lib, pictures(folder), target, get_y=lib.ColReader(kinds)).datasets(data)
    return {"vocab": list(dsets.vocab), "targets": [dsets[i][1].tolist() for i in range(len(ROWS))]}


def from_a_table(lib, folder: Path) -> dict:
    dls = lib.ImageDataLoaders.from_df(
        table(), pictures(folder), label_delim=" ", valid_col="is_valid", bs=2, num_workers=0
    )
    return {"vocab": list(dls.vocab), "c": dls.c, "batch": list(dls.valid.one_batch()[1].shape)}


def metrics(lib, folder: Path) -> dict:
    scores, truth, answers = numbers(1, 40, 5), (numbers(2, 40, 5) > 0.6).float(), {}
    for average in ("macro", "micro", "weighted"):
        for name in ("PrecisionMulti", "RecallMulti", "F1ScoreMulti"):
            for thresh in (0.3, 0.5):
                metric = getattr(lib, name)(thresh=thresh, average=average)
                answers[f"{name}/{average}/{thresh}"] = {
                    "value": over_batches(metric, scores, truth)
                }
        metric = lib.APScoreMulti(average=average)
        answers[f"APScoreMulti/{average}"] = {"value": over_batches(metric, scores, truth)}
    sure = lib.F1ScoreMulti(sigmoid=False)
    answers["probabilities"] = {"value": over_batches(sure, scores.sigmoid(), truth)}
    answers["names"] = {
        name: getattr(lib, name)().name
        for name in ("PrecisionMulti", "RecallMulti", "F1ScoreMulti", "APScoreMulti")
    }
    return answers


def over_batches(metric, scores: torch.Tensor, truth: torch.Tensor) -> float:
    "What a learner would show after three batches."
    metric.reset()
    for pred, target in zip(scores.split(16), truth.split(16), strict=True):
        if hasattr(metric, "update"):
            metric.update(pred, target)
        else:
            same = SimpleNamespace(pred=pred, y=target, yb=(target,), to_detach=lambda part: part)
            metric.accumulate(same)
    return float(metric.value)


def mistakes(lib, folder: Path) -> dict:
    "Which of these raise."
    late = table().assign(labels=["sea", *[""] * 5, "desert", "sea"])
    rows = block(lib, pictures(folder), lib.MultiCategoryBlock)
    return {
        "raises": {
            "a label that training never shows": failure(lambda: rows.datasets(late).valid[0]),
            "a vocabulary without a label of training": failure(
                lambda: block(lib, folder, lib.MultiCategoryBlock(vocab=["sea"])).datasets(table())[
                    0
                ]
            ),
            "encoded without a vocabulary": failure(lib.MultiCategoryBlock, True),
        }
    }


QUESTIONS = {
    ask.__name__: ask
    for ask in (labels_and_targets, encoded_targets, from_a_table, metrics, mistakes)
}


def ask(name: str, lib) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(json.dumps(QUESTIONS[name](lib, Path(folder))))


def main():
    import fastai
    import fastai.vision.all
    import sklearn

    lib = SimpleNamespace(**vars(fastai.vision.all))
    record = {
        "command": "python tests/multilabel_oracle.py, in an environment with fastai",
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (fastai, torch, sklearn, np)},
        "answers": {name: ask(name, lib) for name in QUESTIONS},
    }
    FIXTURE.write_text(written(record))


if __name__ == "__main__":
    main()
