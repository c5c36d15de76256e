"Metrics of scikit-learn: fastai's answers, scikit-learn's own, and metrics that people write."

import inspect
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import coursekit.metrics as m
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.metrics import Metric, sklearn_metric


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SCORES, TRUTH = numbers(1, 40, 4), (numbers(2, 40) * 2).long().abs() % 4
TWO, YES = numbers(3, 40, 2), (numbers(4, 40) > 0.3).long()
LABELS, MANY = numbers(5, 40, 3), (numbers(6, 40, 3) > 0.2).float()
GUESS = numbers(7, 40, 2)
SETS = {
    "scores": (SCORES, TRUTH),
    "two": (TWO, YES),
    "labels": (LABELS, MANY),
    "sure": (LABELS.sigmoid(), MANY),
    "numbers": (GUESS, numbers(8, 40, 2) + GUESS),
}


def over_batches(metric: Metric, pred: torch.Tensor, target: torch.Tensor) -> float:
    metric.reset()
    for parts in zip(pred.split(16), target.split(16), strict=True):
        metric.update(*parts)
    return metric.value


BUILDERS = {"AccumMetric", "Metric", "sklearn_metric"}
OF_FASTAI = (  # of fastai 2.8.12, over the same three batches
    ("Precision()", "two", 0.526315789),
    ("Precision(average='macro')", "scores", 0.332745726),
    ("Recall()", "two", 0.714285714),
    ("Recall(average='weighted')", "scores", 0.35),
    ("F1Score()", "two", 0.606060606),
    ("F1Score(pos_label=0)", "two", 0.723404255),
    ("F1Score(average='micro', labels=[0, 1])", "scores", 0.434782609),
    ("FBeta(2)", "two", 0.666666667),
    ("FBeta(beta=0.5, average='macro')", "scores", 0.328801019),
    ("Jaccard(average='macro')", "scores", 0.200595238),
    ("HammingLoss()", "scores", 0.65),
    ("BalancedAccuracy()", "scores", 0.348168498),
    ("BalancedAccuracy(adjusted=True)", "scores", 0.130891331),
    ("CohenKappa(weights='quadratic')", "scores", 0.03030303),
    ("MatthewsCorrCoef()", "scores", 0.115956009),
    ("RocAuc()", "scores", 0.511689244),
    ("RocAuc(average='weighted', multi_class='ovo')", "scores", 0.508400488),
    ("RocAucBinary()", "two", 0.684065934),
    ("RocAucBinary(max_fpr=0.3)", "two", 0.542124542),
    ("APScoreBinary()", "two", 0.533666935),
    ("PrecisionMulti(thresh=0.4)", "labels", 0.423870968),
    ("RecallMulti(average='samples')", "labels", 0.345833333),
    ("F1ScoreMulti(thresh=0.4, average='samples')", "labels", 0.475),
    ("F1ScoreMulti(sigmoid=False)", "sure", 0.325870336),
    ("FBetaMulti(2, average='micro')", "labels", 0.365384615),
    ("JaccardMulti(average='samples')", "labels", 0.220833333),
    ("HammingLossMulti(0.3)", "labels", 0.566666667),
    ("APScoreMulti()", "labels", 0.397737715),
    ("APScoreMulti(average='samples')", "labels", 0.566666667),
    ("RocAucMulti(average='micro')", "labels", 0.440857143),
    ("R2Score()", "numbers", 0.433668613),
    ("ExplainedVariance()", "numbers", 0.460396349),
    ("PearsonCorrCoef()", "numbers", 0.679399788),
    ("SpearmanCorrCoef()", "numbers", 0.640600094),
)


@pytest.mark.parametrize(("call", "data", "answer"), OF_FASTAI)
def test_same_answer_as_fastai(call, data, answer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels without an item
        metric = eval(call, vars(m).copy())
        assert over_batches(metric, *SETS[data]) == pytest.approx(answer, abs=1e-7)
        assert metric(*SETS[data]) == pytest.approx(answer, abs=1e-7)


def test_every_metric_was_asked():
    asked = {call.partition("(")[0] for call, _, _ in OF_FASTAI}
    assert asked == set(m.__all__) - BUILDERS


def test_areas_of_labels_and_of_two_classes():  # where fastai 2.8.12 raises
    expected = sk.roc_auc_score(MANY.numpy(), LABELS.numpy())
    assert over_batches(m.RocAucMulti(sigmoid=False), *SETS["sure"]) == pytest.approx(expected)
    expected = sk.roc_auc_score(YES.numpy(), (TWO[:, 1] - TWO[:, 0]).numpy())
    assert over_batches(m.RocAuc(), TWO, YES) == pytest.approx(expected)


def test_large_scores_keep_their_order():
    scores = torch.tensor([[0.0, 30.0], [0.0, 33.0], [0.0, 31.0], [0.0, 35.0]])
    assert (scores.softmax(1)[:, 1] == 1).all()
    assert m.RocAucBinary()(scores, torch.tensor([0, 1, 0, 1])) == 1
    labels = torch.tensor([[40.0], [30.0], [50.0]])
    assert (labels.sigmoid() == 1).all()
    assert m.APScoreMulti()(labels, torch.tensor([[0.0], [0.0], [1.0]])) == 1


@pytest.mark.parametrize("name", sorted(set(m.__all__) - BUILDERS))
def test_arguments_are_known_and_a_misspelt_one_is_refused(name):
    make = getattr(m, name)
    assert make.__name__ == name and make.__doc__.endswith(".")
    needed = {
        p.name: 1 for p in inspect.signature(make).parameters.values() if p.default is p.empty
    }
    assert isinstance(make(**needed), Metric)
    with pytest.raises(TypeError, match=f"{name}: .*'averag'"):
        make(**needed, averag="macro")


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="probabilities are wanted"):
        m.F1ScoreMulti(sigmoid=False)(LABELS, MANY)
    with pytest.raises(ValueError, match="not one for one"):
        m.R2Score()(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"f1_score returned shape \(4,\)"):
        m.F1Score(average=None)(SCORES, TRUTH)


@pytest.mark.parametrize(
    ("measure", "data", "read", "more"),
    [
        ("accuracy_score", "scores", lambda s: s.argmax(1), {}),
        ("roc_auc_score", "scores", lambda s: s.double().softmax(1), {"multi_class": "ovr"}),
        ("roc_auc_score", "two", lambda s: s.double().softmax(1)[:, 1], {}),
        ("log_loss", "scores", lambda s: s.double().softmax(1), {}),
        ("top_k_accuracy_score", "scores", lambda s: s.double().softmax(1), {"k": 2}),
        ("average_precision_score", "labels", lambda s: s.double().sigmoid(), {}),
        ("hamming_loss", "labels", lambda s: s > 0, {}),
        ("r2_score", "numbers", lambda s: s.double(), {}),
    ],
)
def test_a_measure_gets_what_it_wants(measure, data, read, more):
    scores, target = SETS[data]
    expected = getattr(sk, measure)(target.numpy(), read(scores).numpy(), **more)
    for func in (measure, getattr(sk, measure)):
        found = over_batches(sklearn_metric(func, **more), scores, target)
        assert found == pytest.approx(expected, abs=1e-12)


def test_scikit_learn_is_imported_on_use():
    program = (
        "import sys, coursekit.metrics as m; assert 'sklearn' not in sys.modules and 'scipy' not "
        "in sys.modules; m.Precision(); assert 'sklearn.metrics' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_accum_metric():
    def kappa(pred, target, weights):
        assert pred.shape == target.shape == (40,) and pred.dtype == torch.long
        return sk.cohen_kappa_score(pred, target, weights=weights)

    metric = m.AccumMetric(kappa, dim_argmax=-1, weights="linear")
    expected = sk.cohen_kappa_score(SCORES.argmax(1), TRUTH, weights="linear")
    assert metric.name == "kappa" and over_batches(metric, SCORES, TRUTH) == pytest.approx(expected)
    area = m.AccumMetric(
        sk.roc_auc_score, activation="binarysoftmax", to_np=True, invert_arg=True, name="area"
    )
    assert area.name == "area"
    assert over_batches(area, TWO, YES) == pytest.approx(0.684065934, abs=1e-6)
    share = m.AccumMetric(lambda p, t: (p == t.bool()).float().mean(), None, "sigmoid", 0.5)
    assert over_batches(share, LABELS, MANY) == pytest.approx(
        ((LABELS >= 0) == MANY.bool()).float().mean().item()
    )
    shapes = []
    m.AccumMetric(lambda p, t: shapes.append((p.shape, t.shape)) or 0, flatten=False)(LABELS, MANY)
    assert shapes == [((40, 3), (40, 3))]
    with pytest.raises(ValueError, match="activation='relu'"):
        m.AccumMetric(kappa, activation="relu")


# metrics that people write, in fastai's form


class Hits(Metric):
    def __init__(self):
        self.names = []

    def reset(self):
        self.right = self.seen = 0

    def accumulate(self, learn):
        self.right += (learn.pred.argmax(1) == learn.y).sum().item()
        self.seen += len(learn.yb[0])

    @property
    def value(self):
        return self.right / self.seen if self.seen else None


class Named(Hits):
    @property
    def name(self):
        return "my hits"


def test_a_metric_of_ones_own_works_in_a_learner():
    dls = DataLoaders(*(DataLoader(TensorDataset(SCORES, TRUTH), 16) for _ in range(2)))
    learn = Learner(
        dls, nn.Linear(4, 4), F.cross_entropy, metrics=[Hits(), Named(), m.F1Score(average="macro")]
    )
    with learn.no_logging():
        learn.fit(2)
    assert learn.recorder.metric_names[3:-1] == ["hits", "my hits", "f1_score"]
    preds, target = learn.get_preds(act=nn.Identity())
    expected = (preds.argmax(1) == target).float().mean().item()
    assert learn.recorder.values[-1][2:4] == [pytest.approx(expected)] * 2
    assert learn.metrics[0].value == learn.recorder.metrics[0].value == pytest.approx(expected)


def test_a_metric_needs_something_to_measure_with():
    with pytest.raises(TypeError, match="Metric has nothing to measure with"):
        Metric()
    assert Metric(lambda pred, target: 3, name="three").name == "three"
    named = Metric(F.mse_loss)
    named.name = "squares"
    assert named.name == "squares" and "squares" in repr(named)
