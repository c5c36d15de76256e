"""The results of the race card: kept with every single time in results.json, told in RESULTS.md and a figure."""

import json
import math
import statistics
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from helper import markdown_table, ratios
from races import CURVES, OURS, RACES, Curve, Race

LESS_IS_BETTER = {"mse", "p95"}
LABELS = {"mse": "MSE", "p95": "95 % answered within ms"}
COLOURS = {OURS: "#0b5cad", "fastai": "#c4501b"}
FIGURE = (
    "![Above, how many times as fast we are in each race, a point for the median and a line from the"
    " least to the most of the pairs; below, seconds over size for each curve of cost.](results.png)\n"
)
GREY, INK = "#8a8a8a", "#333333"


# ---------------------------------------------------------------- kept
def load(folder: Path) -> dict:
    "What earlier runs have found; nothing if there were none, or if the file is damaged."
    try:
        kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    return {"about": {}, "results": {}} | kept


def write(kept: dict, folder: Path) -> None:
    "All three files; a figure that cannot be drawn loses no numbers."
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept, indent=1)
    replace(folder / "results.json", text + "\n")
    kept = json.loads(text)  # points are words from here on
    try:
        figure(kept, folder / "results.png")
    except Exception as error:
        print(f"  no figure: {error}", flush=True)
    replace(folder / "RESULTS.md", page(kept))


def replace(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


# ---------------------------------------------------------------- numbers
def middle(answers: list[dict], key: str = "seconds") -> float | None:
    values = [answer[key] for answer in answers if key in answer]
    return statistics.median(values) if values else None


def peak(answers: list[dict]) -> float | None:
    return max((answer["peak"] for answer in answers if "peak" in answer), default=None)


def times_as_fast(done: dict, other: str) -> list[float]:
    "Our side against another, round by round; nothing where one is missing, or for a curve."
    ours, theirs = done.get(OURS), done.get(other)
    return ratios(ours, theirs) if theirs and isinstance(ours, list) else []


def compared(race: Race, found: dict) -> Iterator[dict]:
    "Our side against each other one."
    done = found.get("done", {})
    ours = done.get(OURS, [])
    for other in (side for side in done if side != OURS):
        if times := times_as_fast(done, other):
            yield {
                "other": other,
                "ours": middle(ours),
                "theirs": middle(done[other]),
                "times": statistics.median(times),
                "range": (min(times), max(times)),
                "goal": race.goals.get(other),
                "pairs": list(zip(ours, done[other], strict=True)),
                "peaks": (peak(ours), peak(done[other])),
                "quality": tuple(
                    middle(x, race.quality) if race.quality else None for x in (ours, done[other])
                ),
            }


def faults(race: Race, found: dict) -> Iterator[str]:
    "Where we lose: goals missed, slower, more memory, worse."
    for row in compared(race, found):
        times, (low, high), goal = row["times"], row["range"], row["goal"]
        span = f"{two(times)} times as fast as {row['other']} ({two(low)} to {two(high)})"
        if goal and times < goal:
            yield f"{span}; the goal is {two(goal)}"
        elif times < 1:
            yield span + (f", within the goal of {two(goal)}" if goal else "")
        elif low < 1 < high:
            yield f"{span}: rounds disagree about who is faster"
        ours, theirs = row["peaks"]
        if ours and theirs and ours > 1.05 * theirs:
            yield f"{ours / theirs:.2f} times the memory of {row['other']}"
        mine, other = row["quality"]
        rounds, worse = len(row["pairs"]), sum(map(race_worse(race), row["pairs"]))
        if worse > rounds / 2:
            name = LABELS.get(race.quality, race.quality)
            span = f"{name} {good(mine)}, {row['other']} {good(other)}"
            yield f"{span}: worse in {worse} of {rounds} rounds"


def race_worse(race: Race) -> Callable[[tuple[dict, dict]], bool]:
    "Whether ours was the worse of a round."
    sign = 1 if race.quality in LESS_IS_BETTER else -1

    def worse(pair: tuple[dict, dict]) -> bool:
        mine, other = (answer.get(race.quality) for answer in pair)
        return mine is not None and other is not None and sign * mine > sign * other

    return worse


def two(value: float) -> str:
    "Three digits that count."
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def good(value: float) -> str:
    "A measure of quality."
    return f"{value:.3f}" if value < 10 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"


# ---------------------------------------------------------------- words
def in_short(name: str, found: dict) -> str:
    "What a race has said, for those who watch."
    if "failed" in found:
        return f"          FAILED: {found['failed']}"
    lines = []
    if name in RACES:
        for row in compared(RACES[name], found):
            low, high = map(two, row["range"])
            lines.append(f"{two(row['times'])} times as fast as {row['other']} ({low} to {high})")
    lines += [f"{side}: not run: {why}" for side, why in found.get("missing", {}).items()]
    lines += [found["note"]] if found.get("note") else []
    return "\n".join(f"          {line}" for line in lines or [f"done in {found['wall']} s"])


def page(kept: dict) -> str:
    "RESULTS.md."
    about, found = kept["about"], kept["results"]
    parts = [
        "# Results of the race card\n",
        "`make bench` writes this page; every single time stands in `results.json` beside it. How"
        " it is measured, and what is not: `docs/speed.md`.\n",
        where(about, found),
    ]
    if about.get("quick"):
        parts.append(
            "**A quick look with tiny sizes, to see that the card works. No measurement.**\n"
        )
    parts += [losses(found), not_run(found), race_table(found), FIGURE, what_each_is(found)]
    if any(name in found for name in CURVES):
        parts += curve_parts(found)
    parts.append(budget_part(found.get("budgets", {})))
    return "\n".join(part for part in parts if part)


def where(about: dict, found: dict) -> str:
    machine, versions = about["machine"], dict(about["versions"])
    commit = versions.pop("commit")
    text = (
        f"{about['date']}, commit {commit}. {machine['cores']} cores of {machine['processor']},"
        f" {machine['memory GB']} GB of memory, {machine['system']}, Python {machine['python']};"
        f" {machine['load at start']} processes wanted a core in the minute before the start.\n"
    )
    had = {name: words for name, words in versions.items() if not words.startswith("not there")}
    text += f"\nVersions: {', '.join(f'{name} {words}' for name, words in had.items())}.\n"
    old = {f["date"] for name, f in found.items() if f.get("date") != about["date"]}
    older = [title_of(n) for n, f in found.items() if f.get("date") in old]
    if older:
        text += f"\nOf earlier runs ({', '.join(sorted(old))}): {'; '.join(older)}.\n"
    return text


def title_of(name: str) -> str:
    known = RACES | CURVES
    return known[name].title if name in known else "Lessons against their budgets"


def losses(found: dict) -> str:
    lines = [
        f"- **{race.title}**: {'; '.join(lost)}."
        for name, race in RACES.items()
        if (lost := list(faults(race, found.get(name, {}))))
    ]
    return "## Where we lose\n\n" + ("\n".join(lines) or "In no race that was run.") + "\n"


def not_run(found: dict) -> str:
    lines = []
    for name in [*RACES, *CURVES, "budgets"]:
        each = found.get(name)
        if each is None:
            lines.append(f"- **{title_of(name)}**: not run.")
        elif "failed" in each:
            lines.append(f"- **{title_of(name)}**: {plain(each['failed'])}.")
        else:
            said = [f"{side}: {plain(why)}" for side, why in each.get("missing", {}).items()]
            said += [plain(each["note"])] if each.get("note") else []
            if name in CURVES:
                said += points_left_out(each)
            lines += [f"- **{title_of(name)}**: {'; '.join(said)}."] if said else []
    return "## Not run, or cut\n\n" + ("\n".join(lines) or "Everything ran whole.") + "\n"


def plain(words: str) -> str:
    "Without what Markdown or a table would take for a sign, and without folders."
    words = words.strip().rstrip(".").replace("|", "/").replace("`", "'").replace("<", "(")
    return " ".join(Path(w).name or w if w.startswith("/") else w for w in words.split())


def points_left_out(found: dict) -> list[str]:
    done = found.get("done", {})
    empty = [
        p for p in map(str, found.get("points", [])) if not any(s.get(p) for s in done.values())
    ]
    return [f"no time for {', '.join(f'{int(p):,}' for p in empty)}"] if empty else []


def race_table(found: dict) -> str:
    head = [
        "race",
        "against",
        "ours",
        "theirs",
        "times as fast",
        "goal",
        "MB ours, theirs",
        "quality",
    ]
    rows = []
    for name, race in RACES.items():
        each = found.get(name, {})
        for row in compared(race, each):
            rows.append(race_row(race, row))
        if OURS in each.get("done", {}) and len(each["done"]) == 1 and each["done"][OURS]:
            ours = each["done"][OURS]
            rows.append([race.title, "", seconds(middle(ours)), *[""] * 5])
    return "## Races\n\n" + (markdown_table(head, rows) if rows else "None yet.\n")


def race_row(race: Race, row: dict) -> list[str]:
    low, high = map(two, row["range"])
    goal = (
        f"{two(row['goal'])}: {'met' if row['times'] >= row['goal'] else 'MISSED'}"
        if row["goal"]
        else ""
    )
    peaks = ", ".join(f"{value:,.0f}" if value else "?" for value in row["peaks"])
    told = [good(value) for value in row["quality"] if value is not None]
    quality = f"{LABELS.get(race.quality, race.quality)} {', '.join(told)}" if told else ""
    times = f"**{two(row['times'])}** ({low} to {high})"
    first = [race.title, row["other"], seconds(row["ours"]), seconds(row["theirs"])]
    return [*first, times, goal, peaks, quality]


def what_each_is(found: dict) -> str:
    lines = []
    for name, race in RACES.items():
        if name in found and "failed" not in found[name]:
            data = found[name].get("data")
            rounds = max(map(len, found[name].get("done", {}).values()), default=0)
            threads = " One thread each." if race.threads else ""
            more = f" Data: {data}." if data else ""
            lines.append(f"- **{race.title}**, {rounds} pairs. {race.what}{threads}{more}")
    return "\n".join(lines) + "\n" if lines else ""


def curve_parts(found: dict) -> list[str]:
    parts = ["## How cost grows\n"]
    for name, curve in CURVES.items():
        if found.get(name, {}).get("done"):
            parts += [f"### {curve.title}\n", curve_table(curve, found[name])]
    return parts


def curve_table(curve: Curve, found: dict) -> str:
    done = {side: answers for side, answers in found["done"].items() if any(answers.values())}
    head = [curve.axis, *done, *[f"MB, {side}" for side in done], "rounds"]
    rows = []
    for point in map(str, found["points"]):
        answers = {side: done[side].get(point, []) for side in done}
        if any(answers.values()):
            peaks = [f"{peak(each):,.0f}" if peak(each) else "" for each in answers.values()]
            times = [seconds(middle(each)) for each in answers.values()]
            rows.append([f"{int(point):,}", *times, *peaks, str(max(map(len, answers.values())))])
    return markdown_table(head, rows)


def budget_part(found: dict) -> str:
    if not found.get("rows"):
        return ""
    rows = [[name, f"{took:.1f} s", f"{most} s"] for name, took, most in found["rows"]]
    return "## Lessons against their budgets\n\n" + markdown_table(
        ["lesson", "took", "budget"], rows
    )


# ---------------------------------------------------------------- the figure
def figure(kept: dict, file: Path) -> None:
    "Ratios of all races above, curves of cost below."
    from matplotlib.figure import Figure

    found = kept["results"]
    rows = [
        (f"{race.title} : {row['other']}", row)
        for name, race in RACES.items()
        for row in compared(race, found.get(name, {}))
    ]
    curves = [
        name
        for name in CURVES
        if any(map(any_points, found.get(name, {}).get("done", {}).values()))
    ]
    lines = math.ceil(len(curves) / 3)
    tall = [0.7 + 0.27 * max(len(rows), 1), 2.4 * lines]
    fig = Figure(figsize=(9, sum(tall)), layout="constrained", dpi=110)
    parts = fig.subfigures(2, 1, height_ratios=tall) if curves else [fig]
    draw_ratios(parts[0].subplots(), rows)
    for i, name in enumerate(curves):
        ax = parts[1].add_subplot(lines, 3, i + 1)
        draw_curve(ax, CURVES[name], found[name]["done"])
    fig.savefig(file)


def any_points(answers: dict) -> bool:
    return any(answers.values())


def draw_ratios(ax, rows: list) -> None:
    for place, (_, row) in enumerate(reversed(rows)):
        colour = COLOURS["fastai"] if row["times"] < 1 else COLOURS[OURS]
        ax.plot(row["range"], [place, place], color=colour, lw=1.5)
        ax.plot(row["times"], place, "o", color=colour, ms=5)
        if row["goal"]:
            ax.plot(row["goal"], place, "|", color=INK, ms=12)
    ax.axvline(1, color=GREY, lw=1)
    ax.set_xscale("log")
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(rows)), [title for title, _ in reversed(rows)], fontsize=8)
    ax.set_xlabel("times as fast (median and range of pairs; a stroke is the goal)", fontsize=8)
    clear(ax)


def draw_curve(ax, curve: Curve, done: dict) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for side, answers in done.items():
        points = sorted((int(p), middle(each)) for p, each in answers.items() if each)
        if points:
            ax.plot(
                *zip(*points, strict=True),
                "o-",
                ms=3,
                lw=1.3,
                label=side,
                color=COLOURS.get(side, GREY),
            )
    if curve.grows:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(bottom=0)
    points = sorted({int(p) for answers in done.values() for p, each in answers.items() if each})
    shown = points[:: 2 if len(points) > 5 else 1]
    ax.set_xticks(shown, [brief(point) for point in shown])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(textwrap.fill(curve.title, 36), fontsize=8)
    ax.set_ylabel("seconds", fontsize=8)
    ax.legend(frameon=False, fontsize=7)
    clear(ax)


def brief(number: int) -> str:
    "10,000 as 10k, and 2,000,000 as 2M."
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def clear(ax) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
