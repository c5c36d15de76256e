"What is raced, and with which sizes: the card in data, for those who run it and those who write it down."

from collections.abc import Callable
from dataclasses import dataclass, field

OURS = "coursekit"
NEEDED = {"fastai": "fastai", "timm": "timm", "surprise": "scikit-surprise", "implicit": "implicit"}


@dataclass(frozen=True)
class Race:
    "Sides that do the same thing in turns, each in a process of its own."

    title: str
    what: str  # in a sentence, for the page
    sides: tuple[str, ...] = (OURS, "fastai")  # ours first
    action: str = ""  # of sides.py; races without one have a way of their own in card.py
    sizes: dict = field(default_factory=dict)
    warm: dict = field(default_factory=dict)  # of the turn that is not counted, where they differ
    quick: dict = field(default_factory=dict)  # of `--quick`
    needs: dict = field(
        default_factory=dict
    )  # functions of prepare.py: how many, and how many quickly
    pairs: int = 5
    budget: float = 60  # seconds
    goals: dict = field(default_factory=dict)  # how many times as fast as another side, at least
    quality: str = ""  # which number of an answer says how good it is
    threads: int | None = None  # of each side; what each takes by itself, if None


PHOTOS = {"bears": (416, 96)}
RESNET = "ResNet-18, pictures of {} pixels, batches of 64, random first weights: speed alone"
RECOMMENDER = {"epochs": 5, "rate": 5e-3, "wd": 0.1, "factors": 50, "bs": 64}
RACES = {
    "digits": Race(
        "Digits, an epoch",
        "A net with 784, 50 and 10 units, 60,000 digits, batches of 64, SGD, with validation on 10,000.",
        (OURS, "fastai", "bare loop"),
        "digits",
        quick={"n": 3000},
        needs={"digits": (0, 0)},
        pairs=9,
        budget=80,
        goals={"fastai": 3, "bare loop": 1 / 1.3},
        quality="accuracy",
        threads=1,
    ),
    "loader_small": Race(
        "Training pictures of 28 kB, a pass",
        "512 JPEGs of 320 pixels: open, random crop to 224, flip, turn, warp, light, normalise; empty steps.",
        action="loader",
        sizes={"n": 512, "kind": "small"},
        quick={"n": 64},
        needs={"small_photos": (512, 80)},
        budget=80,
        goals={"fastai": 3},
    ),
    "loader_large": Race(
        "Training pictures of 3 MB, a pass",
        "The same with 48 readings of six JPEGs of 12 megapixels, batches of 8.",
        action="loader",
        sizes={"n": 48, "kind": "large", "bs": 8},
        warm={"n": 8},
        quick={"n": 8},
        needs={"large_photos": (6, 2)},
        budget=85,
    ),
    "frozen": Race(
        "Frozen body, an epoch",
        f"{RESNET.format(224)}; the head learns on 128 pictures, validation on 72.",
        (OURS, "fastai", "timm"),
        "frozen",
        sizes={"n": 200},
        warm={"n": 80},
        quick={"n": 80, "pixels": 64},
        needs=PHOTOS,
        budget=260,
        goals={"fastai": 4},
    ),
    "unfrozen": Race(
        "Whole net, an epoch",
        f"{RESNET.format(160)}; all of it learns on 128 pictures, validation on 32.",
        (OURS, "fastai", "timm"),
        "unfrozen",
        sizes={"n": 160, "pixels": 160},
        warm={"n": 80},
        quick={"n": 80, "pixels": 64},
        needs=PHOTOS,
        budget=250,
        goals={"fastai": 1.3},
    ),
    "lite0": Race(
        "fine_tune(1) of a pretrained net",
        "EfficientNet-Lite0 with weights from ImageNet: an epoch frozen, one with all of it, on"
        " 128 pictures of 128 pixels, validation on 32; another split each turn.",
        action="lite0",
        sizes={"n": 160, "pixels": 128},
        warm={"n": 80},
        quick={"n": 80, "pixels": 64},
        needs={"lite0": (416, 96)},
        budget=215,
        quality="accuracy",
    ),
    "recommender": Race(
        "Recommender, five epochs",
        "MovieLens 100k, 50 factors and biases, batches of 64, one cycle; surprise's SVD has the same model and an SGD"
        " of its own, implicit's ALS is another model that ranks.",
        (OURS, "fastai", "bare loop", "surprise", "implicit"),
        "recommender",
        sizes=RECOMMENDER,
        warm={"n": 5000, "epochs": 1},
        quick={"n": 5000, "epochs": 1},
        needs={"ratings": (0, 0)},
        budget=350,
        goals={"fastai": 8},
        quality="mse",
        threads=1,
    ),
    "get_preds": Race(
        "get_preds",
        "Predictions of a ResNet-18 for 128 pictures, resized to 224.",
        action="get_preds",
        sizes={"n": 128},
        quick={"n": 80, "pixels": 64},
        needs=PHOTOS,
        budget=100,
    ),
    "tta": Race(
        "tta, four looks",
        "The same for four changed copies of 32 pictures and the pictures as they are.",
        action="tta",
        sizes={"n": 32},
        quick={"n": 32, "pixels": 64},
        needs=PHOTOS,
        budget=150,
    ),
    "export": Race(
        "export",
        "Write a learner with a ResNet-18 and its way of data to a file. Ours builds it again from what it is about to"
        " write, compares the answers, sums all bytes and waits for the disk; fastai's is a pickle.",
        action="export",
        sizes={"n": 80},
        needs=PHOTOS,
        pairs=9,
        budget=30,
    ),
    "predict": Race(
        "First answer of a fresh process",
        "Start Python, import, load an exported ResNet-18, name one photograph, end. Probabilities have to agree.",
        pairs=7,
        budget=80,
        goals={"fastai": 2},
    ),
    "import": Race(
        "Import of everything",
        "`from coursekit.all import *` against the same of `fastai.vision.all` and `fastai.collab`; torch is there.",
        pairs=7,
        budget=80,
        goals={"fastai": 3},
    ),
    "service": Race(
        "Service, 10 clients",
        "One answer of the service of lesson 12 and of the obvious one (FastAPI, `learn.predict`), both ResNet-18, ten"
        " clients on the same machine.",
        budget=100,
        goals={"fastai": 2},
        quality="p95",
    ),
}


@dataclass(frozen=True)
class Curve:
    "A cost over sizes."

    title: str
    axis: str
    action: str
    points: tuple[int, ...]
    sizes: Callable[[int], dict]  # of sides.py, for a point
    quick: tuple[int, ...]
    needs: dict = field(default_factory=dict)
    many: str = ""  # a function of prepare.py for each point
    sides: tuple[str, ...] = (OURS, "fastai")
    repeats: int = 3
    budget: float = 80
    more: tuple[int, ...] = ()  # with --long
    grows: bool = True  # in proportion to the point, to guess what the next one takes
    threads: int | None = None


CURVES = {
    "cost_pictures": Curve(
        "A frozen epoch over pictures, 64 pixels",
        "pictures",
        "frozen",
        (400, 800, 1600, 3200, 6400),
        lambda point: {"n": point, "pixels": 64},
        (80, 160),
        PHOTOS,
        budget=195,
    ),
    "cost_size": Curve(
        "A frozen epoch of 128 pictures over their size",
        "pixels of a side",
        "frozen",
        (64, 96, 128, 160, 192, 224, 256),
        lambda point: {"n": 128, "pixels": point},
        (32, 64),
        PHOTOS,
        budget=100,
    ),
    "cost_ratings": Curve(
        "Loaders and an epoch over ratings, batches of 8,192",
        "ratings",
        "ratings",
        (100_000, 500_000, 2_000_000, 8_000_000),
        lambda point: {"n": point},
        (10_000, 20_000),
        many="many_ratings",
        budget=120,
        more=(20_000_000,),
    ),
    "cost_workers": Curve(
        "A pass over 256 pictures of 28 kB over workers",
        "workers",
        "loader",
        (0, 1, 2, 3, 4),
        lambda point: {"n": 256, "kind": "small", "workers": point},
        (0, 1),
        {"small_photos": (512, 272)},
        budget=80,
        grows=False,
    ),
    "cost_classes": Curve(
        "An epoch of one layer over classes, 10,240 rows",
        "classes",
        "classes",
        (10, 100, 1000, 10_000),
        lambda point: {"n": point},
        (10, 100),
        sides=(OURS, "fastai", "bare loop"),
        budget=40,
        threads=1,
    ),
}
