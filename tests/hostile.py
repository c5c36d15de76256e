"""Load thousands of hostile descriptions in a process of its own, and watch what that does.

    python tests/hostile.py 3000 0

Takes good exports, changes each at random (another part, a wrong argument, nesting, names that look like
paths, attributes and calls), signs it as an attacker would, and loads it with default arguments. Prints a
line of JSON: how many were refused and loaded, raw errors, forbidden audit events, memory and time.
"""

import copy
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import timm  # noqa: F401  what a file may name is imported before the watch begins
import torch
import torchvision
from PIL import Image
from torch import nn

import coursekit.all  # noqa: F401
from coursekit import (
    augment,
    blocks,
    bodies,
    collab,
    data,
    export_files,
    export_parts,
    exporting,
    image_loaders,
    multilabel,
    normalize,
    recipes,
    resizing,
    targets,
    vision,
)
from coursekit.events import LearnerError
from coursekit.learner import Learner
from coursekit.messages import DataError
from coursekit.ratings import CollabDataLoaders

NAMES = """os.system posix.system builtins.eval builtins.exec subprocess.Popen data.os.system data.patch
    transforms.Categorize.__init__ data.__builtins__ learner.safe_load loop.Learner learner.pickle.loads
    datasets.untar_data export_parts.part_named exporting.importlib.import_module training.torch.load Module
    torch.load torch.hub.load functional.torch.load torchvision.models.os get_model cli.main __main__.x
    ../../etc/passwd /bin/sh hf-hub:a/b local-dir:/tmp http://127.0.0.1/x data data. . __class__ Sequential
    __import__ transforms.PILImage.open transforms.PILImage.create.__func__ bodies.create_body vision.vision_learner
    ratings.ToIds augment.Flip losses.MSELossFlat Linear relu bodies.resnet18 resnet18 densenet121
    deeplabv3_resnet50 maskrcnn_resnet50_fpn resnet10t tf_efficientnet_lite0.in1k""".split()
VALUES = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        7,
        2**31,
        2**62,
        10**30,
        0.5,
        -0.1,
        1e308,
        float("nan"),
        "",
        "same",
    ),
    *(
        [],
        [1, 2],
        [[1, 2], [3, 4]],
        [0] * 500,
        {},
        {"a": 1},
        {"tensor": "model.0.weight"},
        [[[[1]]]],
    ),
    *({"part": "os.system"}, {"yours": "os.system"}, {"yours": "os.system", "with": {"x": "ls"}}),
    *(
        {"part": "Linear", "with": {"in_features": 10**9, "out_features": 10**9}},
        "\u2028\0",
        "a" * 5000,
    ),
    *({"part": "Embedding", "with": {"num_embeddings": 10**12, "embedding_dim": 9}}, {"call": "x"}),
    *({"part": "bodies.create_body", "with": {"arch": {"timm": "hf-hub:a/b"}}}, {"dict": []}),
    *(
        {"part": "bodies.create_body", "with": {"arch": {"torchvision": "os"}}},
        {"path": "/etc/passwd"},
    ),
    {
        "part": "bodies.create_body",
        "with": {"arch": {"part": "bodies.resnet18"}, "cut": "os.system"},
    },
]
KEYS = [
    *export_parts.LIMITS,
    "arch",
    "__class__",
    "self",
    "device",
    "dtype",
    "weights",
    "pretrained",
]
KEYS += ["checkpoint_path", "part", "yours", "with", "layers", "tensor", "draw", "order", "forward"]
EVENTS = (
    "os.",
    "subprocess",
    "exec",
    "import",
    "socket",
    "shutil",
    "ctypes",
    "pty",
    "urllib",
    "ftplib",
)
ALLOWED = ("os.listdir", "os.scandir", "os.walk", "os.getxattr")


def examples(folder: Path) -> list[tuple[str, dict]]:
    "Descriptions and tensors of good exports, which together have every role in the table."
    for i in range(8):
        pixels = np.full((24, 24, 3), i * 30, np.uint8)
        Image.fromarray(pixels).save(folder / f"{'ab'[i % 2]}_{i}.png")
    made = []
    for block, loss in (
        (blocks.CategoryBlock, None),
        (multilabel.MultiCategoryBlock, None),
        (targets.PointBlock, None),
    ):
        labels = {0: lambda f: f.name[0], 1: lambda f: [f.name[0]], 2: lambda f: [(1, 2)]}[
            len(made)
        ]
        dls = blocks.DataBlock(
            (blocks.ImageBlock, block),
            data.get_image_files,
            data.RandomSplitter(0.5, 1),
            get_y=labels,
            item_tfms=resizing.Resize(16),
            batch_tfms=[
                *augment.aug_transforms(size=12, min_scale=0.5),
                normalize.Normalize([0.5] * 3, [1.0] * 3),
            ],
        ).dataloaders(folder, bs=2, num_workers=0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        model = [net, recipes.xresnet18(n_out=2, widen=0.125, stem_szs=(8,)), net][len(made)]
        made.append(Learner(dls, model, loss))
    dls = image_loaders.ImageDataLoaders.from_name_func(
        folder, data.get_image_files(folder), lambda f: f[0], valid_pct=0.5, bs=2, num_workers=0
    )
    for arch in (bodies.resnet18, "resnet10t", torchvision.models.squeezenet1_1):
        made.append(vision.vision_learner(dls, arch, pretrained=False, lin_ftrs=[4]))
    import pandas as pd

    ratings = pd.DataFrame(
        {"u": [1, 2, 3, 1, 2] * 4, "i": [1, 2, 3, 4] * 5, "r": [1.0, 2, 3, 4] * 5}
    )
    loaders = CollabDataLoaders.from_df(ratings, bs=4, duplicates="last")
    made += [
        collab.collab_learner(loaders, 3, y_range=(0, 5)),
        collab.collab_learner(loaders, use_nn=True),
    ]
    return [export_files.read_export(learn.export(folder / "good")) for learn in made]


def spots(node) -> list:
    "Every place in a description, as (container, key)."
    found, todo = [], [node]
    while todo:
        node = todo.pop()
        for key in node if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            if isinstance(node[key], dict | list):
                todo.append(node[key])
    return found


def spoil(description: dict, draw: random.Random) -> None:
    "One change that no writer would make, at a random place."
    node, key = draw.choice(spots(description))
    how = draw.randrange(8)
    if how == 0:
        node[key] = draw.choice(NAMES)
    elif how <= 2:
        node[key] = draw.choice(VALUES)
    elif how == 3 and isinstance(node, dict):
        node[draw.choice(KEYS)] = draw.choice([*VALUES, *NAMES])
    elif how == 4 and isinstance(node, dict):
        node[draw.choice(KEYS)] = node.pop(key)
    elif how == 5:
        node[key] = draw.choice([[node[key]], {"part": node[key]}, {"0": node[key]}])
    elif how == 6:
        other, place = draw.choice(spots(description))
        node[key] = copy.deepcopy(other[place])
    else:
        for _ in range(draw.choice([3, 40, 200])):
            node[key] = draw.choice(
                [[node[key]], {"part": "Sequential", "layers": {"0": node[key]}}]
            )


def every_argument(good: list) -> list[tuple[str, dict]]:
    "Each part of the table with each kind of wrong argument, in a place of its role."
    made = []
    places = {"step": ("parts", 0, "steps", 0), "transform": ("loaders", 0, "after_item", 0)}
    places |= {"loss": ("loss",), "layer": ("model", "layers"), "layers": ("model", "layers")}
    places |= {"function": ("loaders", 0, "collate"), "architecture": ("model", "layers")}
    for role, path in places.items():
        for name in sorted(export_parts.TABLE[role]):
            for value in VALUES:
                for key in [*draw_keys(name, role), "device"]:
                    description = json.loads(good[0][0])
                    inner = description
                    for step in path[:-1]:
                        inner = inner[step]
                    how = "layers" if role == "layers" else "with"
                    inner[path[-1]] = {"part": name, how: {key: value}}
                    made.append((json.dumps(description), good[0][1]))
    return made


def draw_keys(name: str, role: str) -> list:
    thing = export_parts.part_named(name, role)
    return [*export_parts.limited_arguments(thing)][:12] if isinstance(thing, type) else ["x"]


def signed(file: Path, text: str, tensors: dict) -> None:
    file.write_bytes(b"".join(bytes(part) for part in export_files.packed(text, tensors)))


def predicted(learn, photo: Path) -> None:
    "What was loaded may not fit together, but it can still do nothing else."
    try:
        learn.predict(photo)
    except Exception:  # a net that does not fit its pictures raises what it likes
        pass


def main(n: int, seed: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    draw, count = random.Random(seed), {"refused": 0, "loaded": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good, photo = examples(folder), folder / "a_0.png"
        for text, tensors in good:
            signed(folder / "bad", text, tensors)
            predicted(exporting.load_learner(folder / "bad"), photo)
        Image.init()
        seen, watching = [], False

        def watch(event, args):
            if not watching:
                return
            writes = event == "open" and (
                (isinstance(args[1], str) and set(args[1]) & set("wax+"))
                or (isinstance(args[2], int) and args[2] & 3)
            )
            if writes or (event.startswith(EVENTS) and event not in ALLOWED):
                seen.append((event, str(args)[:200]))

        sys.addaudithook(watch)
        most = raw = 0
        raw, longest, before = [], 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        table = every_argument(good)
        cases = draw.sample(table, min(len(table), n // 2))
        for i in range(n):
            text, tensors = cases.pop() if cases else draw.choice(good)
            description = json.loads(text)
            for _ in range(0 if i < n // 2 else draw.choice([1, 1, 2, 5])):
                spoil(description, draw)
            try:
                signed(folder / "bad", json.dumps(description), tensors)
            except (LearnerError, RecursionError):  # larger than any export
                continue
            start, watching = time.perf_counter(), True
            try:
                learn = exporting.load_learner(folder / "bad")
                count["loaded"] += 1
                predicted(learn, photo)
            except DataError:
                count["refused"] += 1
            except BaseException as error:
                raw.append(repr(error)[:200])
            watching, took = False, time.perf_counter() - start
            longest = max(longest, took)
            kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            if "-v" in sys.argv and (took > 2 or kept > most + 100):
                most = kept
                print(i, round(took, 1), kept, json.dumps(description)[:1500], flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found = {
        "raw": raw[:5],
        "events": seen[:5],
        "longest_s": round(longest, 2),
        "grown_MB": round(grown),
    }
    print(json.dumps(count | found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
