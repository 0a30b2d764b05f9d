"""Results as one page, complete in itself: a table, bars, curves of the number of examples in the prompt, and answers
to look at. Whatever a model or a data set says is escaped."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image as Pil

from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.results import Answered, Result
from panmodal.training.sheet import STYLE

SHOWN = 40  # right answers of a result, and as many wrong ones
SIDE = 288  # pixels of a picture at most
WIDTH, ROW = 640, 26  # of drawings
OWN_STYLE = """
table { border-collapse: collapse; margin-bottom: 20px; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid var(--line); padding: 4px 14px 4px 0; text-align: left }
td small { color: var(--faint) }
svg { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin-bottom: 16px;
  max-width: 100%; height: auto } svg text { font: 12px system-ui; fill: var(--ink) } .bar { fill: var(--chip) }
.whisker, .line { stroke: var(--ink); fill: none } .line { stroke-width: 2 } .thin { stroke-width: 1 }
.grid { stroke: var(--line) } .truth { color: var(--learned) }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 16px }
main article { margin: 0 } main img, main img:only-child { width: 144px } main .text { min-width: 200px }
main b { background: none; color: inherit; font-weight: 600 } .text small { color: var(--faint) }
.only-wrong article:not(.wrong) { display: none } article.wrong { border-color: var(--bad) }
"""
SCRIPT = """
document.getElementById("wrong").addEventListener("change", event =>
  document.body.classList.toggle("only-wrong", event.target.checked));
"""
OF_SHOTS = ("shots", "retriever", "embedder", "examples")  # settings
Named = tuple[str, Path, Result]  # how the result's model is called on the page, and where the result lies


def page(results: Sequence[tuple[Path, Result]]) -> str:
    """The page of some results, each with the file that it stands in. Raises InputError if there are none."""
    if not results:
        raise InputError("there are no results to show")
    rows = _named(results)
    tasks = list(dict.fromkeys((result.task, result.split) for _, result in results))
    of_task = {key: [row for row in rows if (row[2].task, row[2].split) == key] for key in tasks}
    drawn = "\n".join(_bars(task, some) + _curves(some) for (task, _), some in of_task.items())
    cards = "\n".join(_gallery(row) for row in rows)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Results</title><style>{STYLE}{OWN_STYLE}</style></head><body>
<header><h1>Results</h1><p>Intervals are of 95 %, by a bootstrap over examples.</p></header>
{_table(rows, tasks)}
{drawn}
<p><label><input type="checkbox" id="wrong"> wrong only</label></p>
<main>
{cards}
</main>
<script>{SCRIPT}</script></body></html>
"""


def headline(result: Result) -> str:
    """The name of the metric that stands for a result: its own, else the first that is a number."""
    numbers = [name for name, value in result.metrics.items() if isinstance(value, int | float)]
    if not numbers:
        raise InputError(f"the result of {result.task} has no metric that is a number")
    return result.metric if result.metric in numbers else numbers[0]


def _named(results: Sequence[tuple[Path, Result]]) -> list[Named]:
    """Results with names that tell them apart: the model's, what else was set, and the folder where that is not
    enough"""
    names = []
    for _, result in results:
        settings = [f"{n} shots" for n in [result.provenance.get("shots")] if n is not None]
        settings += [str(r) for r in [result.provenance.get("retriever", "random")] if r != "random"]
        settings += [f"pictures {p}" for p in [result.provenance.get("pictures", "own")] if p != "own"]
        names.append(", ".join([str(result.model), *settings]))
    times = Counter((name, result.task, result.split) for name, (_, result) in zip(names, results, strict=True))
    twice = {name for (name, *_), count in times.items() if count > 1}
    return [
        (f"{name} ({path.parent.name})" if name in twice else name, path, result)
        for name, (path, result) in zip(names, results, strict=True)
    ]


def _table(rows: Sequence[Named], tasks: Sequence[tuple[str, str]]) -> str:
    cells: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for name, _, result in rows:
        metric = headline(result)
        within = (
            "<br><small>[{:.4f}, {:.4f}]</small>".format(*result.intervals[metric])
            if metric in result.intervals
            else ""
        )
        value = f"{result.metrics[metric]:.4f}{within} <small>{escape(metric)}</small>"
        cells[name][result.task, result.split] = value
    head = "".join(f"<th>{escape(task)}<br><small>{escape(split)}</small></th>" for task, split in tasks)
    lines = {name: "".join(f"<td>{own.get(task, '')}</td>" for task in tasks) for name, own in cells.items()}
    body = "\n".join(f"<tr><th>{escape(name)}</th>{line}</tr>" for name, line in lines.items())
    return f"<table><tr><th></th>{head}</tr>\n{body}</table>"


def _bars(task: str, rows: Sequence[Named]) -> str:
    """A bar for each result of a task, and its interval"""
    metric = headline(rows[0][2])
    ends = [_interval(result, headline(result)) for _, _, result in rows]
    most = max(1.0, *(high for *_, high in ends))
    scale = (WIDTH - 260) / most
    drawn = [f'<text x="10" y="18">{escape(f"{task}, {rows[0][2].split}: {metric}")}</text>']
    for i, ((name, _, _), (value, low, high)) in enumerate(zip(rows, ends, strict=True)):
        y = ROW * (i + 1)
        drawn.append(f'<text x="10" y="{y + 17}">{escape(name[:30])}</text>')
        drawn.append(f'<rect class="bar" x="200" y="{y + 4}" width="{max(0.0, value * scale):.1f}" height="18"/>')
        drawn.append(f'<path class="whisker" d="M{200 + low * scale:.1f} {y + 13}H{200 + high * scale:.1f}"/>')
        drawn.append(f'<text x="{206 + high * scale:.1f}" y="{y + 17}">{value:.4f}</text>')
    return _drawing("".join(drawn), ROW * (len(rows) + 1) + 8)


def _curves(rows: Sequence[Named]) -> str:
    """A line over the number of examples in the prompt for each retriever, where results differ by these alone. Without
    examples retrievers are the same."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for _, _, result in rows:
        if result.provenance.get("shots") is not None:
            groups[_but_shots(result.provenance)].append(result)
    lines: list[tuple[str, list[tuple[int, float, float, float]]]] = []
    for some in groups.values():
        for way in dict.fromkeys(str(r.provenance["retriever"]) for r in some if r.provenance["shots"]):
            own = [r for r in some if not r.provenance["shots"] or r.provenance["retriever"] == way]
            points = sorted((r.provenance["shots"], *_interval(r, headline(r))) for r in own)
            if len({shots for shots, *_ in points}) > 1:
                lines.append((f"{own[0].model}, {way}", points))
    if not lines:
        return ""
    points = [point for _, line in lines for point in line]
    ticks = sorted({shots for shots, *_ in points})
    top, height, below = max(1.0, *(high for *_, high in points)), 200, 24 + ROW * len(lines)

    def place(shots: int, value: float) -> tuple[float, float]:
        return 48 + (WIDTH - 72) * shots / ticks[-1], height - (height - 36) * value / top

    drawn = [f'<text x="10" y="18">{escape(headline(rows[0][2]))} over examples in the prompt</text>']
    for value in (0, top / 2, top):
        _, y = place(0, value)
        drawn.append(
            f'<path class="grid" d="M48 {y:.1f}H{WIDTH - 24}"/><text x="10" y="{y + 4:.1f}">{value:.3g}</text>'
        )
    for shots in ticks:
        x, _ = place(shots, 0)
        drawn.append(f'<text x="{x:.1f}" y="{height + 18}" text-anchor="middle">{shots}</text>')
    for number, (name, line) in enumerate(lines):
        ends = [(place(shots, value), place(shots, low)[1], place(shots, high)[1]) for shots, value, low, high in line]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for (x, y), *_ in ends)
        whiskers = "".join(f"M{x:.1f} {low:.1f}V{high:.1f}" for (x, _), low, high in ends)
        y = height + 20 + ROW * (number + 1)
        colour = f'style="stroke: hsl({137 * number % 360} 60% 50%)"'
        drawn.append(f'<path class="line" {colour} d="{path}"/><path class="line thin" {colour} d="{whiskers}"/>')
        drawn.append(f'<path class="line" {colour} d="M48 {y - 4}h24"/><text x="80" y="{y}">{escape(name)}</text>')
    return _drawing("".join(drawn), height + below + 10)


def _but_shots(made: Mapping[str, Any]) -> str:
    """What a result depends on beside its examples"""
    own = {name: value for name, value in made.items() if name not in OF_SHOTS}
    return json.dumps({name: _but_shots(value) if name == "cot" else value for name, value in own.items()})


def _interval(result: Result, metric: str) -> tuple[float, float, float]:
    value = float(result.metrics[metric])
    return value, *result.intervals.get(metric, (value, value))


def _drawing(content: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">{content}</svg>'


def _gallery(row: Named) -> str:
    """Answers of a result, wrong and right, evenly from the first to the last of each"""
    name, path, result = row
    chosen = [one for wrong in (True, False) for one in _evenly([a for a in result.answers if a.wrong is wrong])]
    return "\n".join(_card(f"{name} · {result.task} · {one.id}", path.parent, one) for one in chosen)


def _evenly(answers: Sequence[Answered]) -> list[Answered]:
    count = min(SHOWN, len(answers))
    return [answers[i * len(answers) // count] for i in range(count)]


def _card(title: str, folder: Path, one: Answered) -> str:
    pictures = "".join(_picture(folder / place) for place in one.media)
    lines = [
        f"<b>{escape(one.question)}</b>",
        f"<small>said</small> {escape(one.said)}",
        f'<small>true</small> <span class="truth">{escape(one.expected)}</span>',
    ]
    kind = ' class="wrong"' if one.wrong else ""
    said = "\n".join(lines)
    return f'<article{kind}><h2>{escape(title)}</h2><figure>{pictures}</figure><div class="text">{said}</div></article>'


def _picture(file: Path) -> str:
    """A picture small enough for a page, or the name of what is none"""
    try:
        pixels = Image(file).pixels.copy()
    except InputError:
        return escape(file.name)
    pixels.thumbnail((SIDE, SIDE), Pil.Resampling.LANCZOS)
    return f'<img alt="" src="{Image(pixels).data_url()}">'
