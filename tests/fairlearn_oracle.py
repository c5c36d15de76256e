"""Rates by group asked of fairlearn, and a way to write down its answers.

    /path/to/an/environment/with/fairlearn/bin/python tests/fairlearn_oracle.py

writes `tests/fixtures/fairlearn_oracle.json`; `test_ethics_groups.py` puts the same table to coursekit. fairlearn is no
requirement of the course.
"""

import json
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).parent / "fixtures" / "fairlearn_oracle.json"
NAMES = {
    "error": "zero_one_loss",
    "accuracy": "accuracy_score",
    "false positive rate": "false_positive_rate",
    "false negative rate": "false_negative_rate",
    "selected": "selection_rate",
    "precision": "precision_score",
}


def table(n: int = 4000):
    "Labels, predictions, and two columns of groups of very different sizes, the same everywhere."
    rng = np.random.default_rng(13)
    colour = rng.choice(["blue", "green", "red"], n, p=[0.7, 0.27, 0.03])
    place = rng.choice(["hill", "shore"], n, p=[0.8, 0.2])
    target = rng.random(n) < np.where(colour == "blue", 0.5, 0.3)
    wrong = rng.random(n) < np.where(place == "hill", 0.1, 0.25)
    return target.astype(int), (target ^ wrong).astype(int), {"colour": colour, "place": place}


def main():
    import fairlearn
    import pandas as pd
    import sklearn.metrics
    from fairlearn import metrics

    def of(name):
        return getattr(metrics, name, None) or getattr(sklearn.metrics, name)

    target, said, groups = table()
    frame = metrics.MetricFrame(
        metrics={ours: of(theirs) for ours, theirs in NAMES.items()} | {"n": metrics.count},
        y_true=target,
        y_pred=said,
        sensitive_features=pd.DataFrame(groups),
    )
    rows = frame.by_group.reset_index().to_dict("records")
    overall = {key: float(value) for key, value in frame.overall.items()}
    answer = {"fairlearn": fairlearn.__version__, "overall": overall, "groups": rows}
    FIXTURE.write_text(json.dumps(answer, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
