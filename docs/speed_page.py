"The page of the site about speed: how it is measured, and the results, if there are any."

import json
import re
import shutil
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))

from results import times_as_fast  # noqa: E402

NOT_YET = (
    "## Results\n\nThe race card was not run yet on a quiet machine: `make bench` writes them.\n"
)


def page(target: Path, root: Path = ROOT) -> str:
    "The text, as MyST; the figure of the results goes to `target`, where the site is put together."
    text = (root / "docs" / "speed.md").read_text(encoding="utf-8")
    file = root / "bench" / "RESULTS.md"
    found = file.read_text(encoding="utf-8") if file.exists() else ""
    if "\n## Races" not in found:
        return f"{text}\n{NOT_YET}"
    if (picture := file.with_name("results.png")).exists():
        (target / "docs").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target / "docs" / picture.name)
    else:
        found = re.sub(r"^!\[.*\]\(results\.png\)\n", "", found, flags=re.M)
    found = re.sub(r"^`make bench` writes this page.*\n\n", "", found, flags=re.M)
    results = re.sub(r"^#+ ", lambda mark: f"#{mark[0]}", found, flags=re.M)
    return f"{text}\n{results.replace('## Results of the race card', '## Results', 1)}"


def sentence(root: Path = ROOT) -> str:
    "The races against fastai for the home page; empty if there were none."
    file = root / "bench" / "results.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else {}
    done = [each.get("done") or {} for each in kept.values()]
    raced = filter(None, (times_as_fast(each, "fastai") for each in done))
    times = sorted(map(statistics.median, raced))
    if not times:
        return ""
    won, middle = sum(each > 1 for each in times), statistics.median(times)
    return (
        f" Raced against fastai in pairs, the package is ahead in **{won} of {len(times)} races**, from"
        f" {times[0]:.2g} to {times[-1]:.2g} times as fast, {middle:.2g} times in the middle:"
        " [every race, and where we lose](docs/speed.md)."
    )
