"""The first answer of an application: import, load an exported learner, name one photograph; a process for each.

Both sides export a learner with a ResNet-18, two classes and the same random weights, made for pictures of 224 x 224.
`python bench/card.py --only predict` races it; `python -X importtime bench/predict.py ...` says what is imported.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from helper import Failed, clocked, peak_memory, printed

SIZE, PARTS = 224, ("import", "load", "predict")


def export(side: str, folder: Path) -> None:
    "Export a learner; fastai's gets the weights of ours, so that the two must agree."
    import torch

    weights = folder / "weights.pth"
    if side == "coursekit":
        import coursekit.exporting  # noqa: F401  adds `export`
        from coursekit.bodies import resnet18
        from coursekit.image_loaders import ImageDataLoaders
        from coursekit.resizing import Resize
        from coursekit.vision import vision_learner
    else:
        from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
    dls = ImageDataLoaders.from_folder(
        folder / "photos", valid_pct=0.3, item_tfms=Resize(SIZE), bs=4, num_workers=0, device="cpu"
    )
    torch.manual_seed(0)
    learn = vision_learner(dls, resnet18, pretrained=False, path=folder)
    if side == "coursekit":
        torch.save(learn.model.state_dict(), weights)
    else:
        learn.model.load_state_dict(torch.load(weights))
    learn.model.eval()
    learn.export(f"{side}.pkl")


def answer(side: str, folder: Path) -> None:
    "What an application does until it has its first answer; a line of JSON about it."
    start = time.perf_counter()
    if side == "coursekit":
        from coursekit.exporting import load_learner
    else:
        from fastai.vision.all import load_learner
    imported = time.perf_counter()
    learn = load_learner(folder / f"{side}.pkl")
    loaded = time.perf_counter()
    with learn.no_bar():
        said, _, probabilities = learn.predict(folder / "photos" / "sand" / "0.jpg")
    times = (imported - start, loaded - imported, time.perf_counter() - loaded)
    found = dict(zip(PARTS, times, strict=True)) | {"peak": peak_memory()}
    found |= {"said": str(said), "probabilities": probabilities.tolist()}
    print(f"ANSWER {json.dumps(found)}")


def run(python: str, side: str, folder: Path, step: str = "answer") -> dict:
    "One process, and what it took: wall and processor's seconds of all of it, and of its parts."
    command = [python, "-W", "ignore", __file__, "--step", step, "--side", side]

    def answered() -> dict:
        said = printed(*command, "--folder", folder, what=f"{side} failed at {step}")
        lines = [line for line in said.splitlines() if line.startswith("ANSWER ")]
        return json.loads(lines[0].removeprefix("ANSWER ")) if lines else {}

    return clocked(answered)


def exported(pythons: dict[str, str], folder: Path) -> None:
    "Have photographs in `folder`, and a learner of each side that names them."
    from prepare import phone_photos

    if not (folder / "photos").exists():
        phone_photos(folder)
    for side, python in pythons.items():
        if not (folder / f"{side}.pkl").exists():
            run(python, side, folder, "export")


def agreement(ours: list[dict], theirs: list[dict]) -> str:
    "Raises `Failed` unless both have said the same in each round."
    pairs = list(zip(ours, theirs, strict=True))
    apart = max(
        abs(p - q)
        for a, b in pairs
        for p, q in zip(a["probabilities"], b["probabilities"], strict=True)
    )
    if apart > 0.02 or any(a["said"] != b["said"] for a, b in pairs):
        raise Failed(f"the sides do not agree: their probabilities are {apart:.3f} apart")
    return f"one drawn photograph; probabilities {apart:.4f} apart at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", choices=["export", "answer"], default="answer")
    parser.add_argument("--side", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    {"export": export, "answer": answer}[options.step](options.side, options.folder)


if __name__ == "__main__":
    sys.exit(main())
