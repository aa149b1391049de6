"""One self-contained HTML page from replays: no network, nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from grokwatch._summary import COLUMNS, summary_row
from grokwatch._version import __version__
from grokwatch.replay import Replay
from grokwatch.report import _tables as tables
from grokwatch.report._facts import step_limits, strips
from grokwatch.report._figures import draw_all, small_figure, words
from grokwatch.report._meanings import SAY
from grokwatch.report._style import PALETTE
from grokwatch.report._svg import defaults, inline_svg
from grokwatch.verdict import PHASES

_HERE = Path(__file__).parent
_DARK = (
    "color-scheme: dark; --paper: #171b21; --card: #20262d; --line: #3d4650; --link: #8cc8ff; "
    "--focus: #8cc8ff; --go: #4fc193; --stop: #ff8fa5;"
)
_HEADS = {
    "probability": "P",
    "eta": "expected",
    "val_accuracy": "val. acc.",
    "spikes": "slingshots",
}


def render(runs: Sequence[Replay], progress: Callable[[str], object] | None = None) -> str:
    """Write up runs; see :func:`grokwatch.report.html_report`."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    several = len(runs) > 1
    firsts, lasts = zip(*(step_limits(run) for run in runs), strict=True)
    limits = (min(firsts), max(lasts)) if several else None
    told = []
    for index, run in enumerate(runs):
        if progress is not None:
            progress(run.run.name)
        told.append(_run(run, f"r{index + 1}", limits))
    page = environment.get_template("page.html").render(
        title=f"{len(runs)} runs" if several else told[0]["name"],
        tally=_tally(runs),
        runs=told,
        heads=[_head(name) for name in COLUMNS],
        phases=[p for p in PHASES if any(p in run["phases"] for run in told)],
        style=Markup(_style()),
        script=Markup(script),
        script_hash=Markup(_hash(script)),
        version=__version__,
    )
    return page.lstrip() + "\n"


def _run(replayed: Replay, key: str, limits: tuple[float, float] | None) -> dict[str, Any]:
    """All that the page says of one run."""
    final = replayed.final
    spans = strips(replayed, *step_limits(replayed))
    with defaults():
        figures = []
        for name, figure in draw_all(replayed).items():
            title, caption, seen = words(name, replayed)
            svg = inline_svg(figure, f"{key}-{name}", title, seen)
            figures.append({"title": title, "caption": caption, "svg": svg})
        small = None
        if limits is not None:
            what = words("accuracy", replayed)
            small = inline_svg(
                small_figure(replayed, limits), f"{key}-small", what.title, what.told
            )
    return {
        "key": key,
        "name": replayed.run.name or "run",
        "say": SAY[final.recommendation],
        "colour": {"continue": "", "stop_generalised": "done"}.get(final.recommendation, "stop"),
        "reason": final.reason,
        "facts": tables.facts(replayed),
        "milestones": tables.milestone_rows(replayed),
        "spikes": tables.spike_sentence(replayed),
        "saved": tables.saved(replayed),
        "phases": [p for p in PHASES if any(strip.phase == p for strip in spans)],
        "figures": figures,
        "no_forecast": tables.why_no_forecast(replayed),
        "fits": tables.fit_rows(replayed),
        "read": tables.how_it_was_read(replayed),
        "basis": replayed.run.source.get("basis", []),
        **tables.column_rows(replayed),
        **tables.change_rows(replayed),
        "signals": tables.signal_rows(replayed),
        "small": small,
        "row": _cells(replayed),
    }


def _cells(replayed: Replay) -> list[dict[str, str]]:
    """A row of the summary: what is read, and what is sorted by."""
    row = summary_row(replayed)
    cells = []
    for name, shape in COLUMNS.items():
        value = row[name]
        text = "" if value is None else shape.format(value)
        exact = "" if value is None else value if isinstance(value, str) else repr(float(value))
        cells.append({"text": text, "sort": exact})
    return cells


def _head(name: str) -> dict[str, Any]:
    return {
        "name": _HEADS.get(name, name),
        "words": name in ("run", "phase", "recommendation"),
    }


def _tally(runs: Sequence[Replay]) -> str:
    """How many runs came to what."""
    phases = Counter(run.final.phase for run in runs)
    counted = ", ".join(f"{phases[p]} {p}" for p in PHASES if phases[p])
    return f"{len(runs)} runs, by the phase they ended in: {counted}."


def _style() -> str:
    """The style sheet with the palette filled in."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    for index, scheme in enumerate(("light", "dark")):
        colours = " ".join(f"--{role}: {pair[index]};" for role, pair in PALETTE.items())
        style = style.replace(f"{{{{ {scheme} }}}}", colours)
    return style.replace("{{ dark_page }}", _DARK)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
