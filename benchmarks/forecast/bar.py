"""The bar that the forecast was to clear, line by line, and what was reached."""

from __future__ import annotations

from typing import Any

from benchmarks.forecast.measures import shown

#: Section, what is asked, and whether it was reached (None = not measured).
Line = tuple[str, str, str, bool | None]


def _one(entries: list[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    found = [e for e in entries if all(e.get(k) == v for k, v in wanted.items())]
    return found[0] if found else None


def _at_least(section: str, asked: str, found: Any, bar: float) -> Line:
    if found is None:
        return section, asked, "not measured", None
    return section, asked, f"{found[0]:.3f} ({found[1]:.3f}-{found[2]:.3f})", found[0] >= bar


def bar(results: dict[str, Any], split: str) -> list[Line]:
    """Every line of the bar for which there is a table in the results."""
    lines: list[Line] = []
    if "if" in results:
        for time, least in (("400", 0.93), ("5 t2", 0.97)):
            e = _one(results["if"], kind="mlp", at=time)
            lines.append(
                _at_least("1 if", f"AUC >= {least} at {time}, MLPs", e and e["full"], least)
            )
    if "transfer" in results:
        for part, asked in (
            (f"  of these mlp and deep, {split}", "operators left out, MLPs"),
            (f"no transformer seen, {split}", "MLP -> transformer"),
        ):
            e = _one(results["transfer"], part=part, at="1000")
            asked = f"AUC >= 0.92 at 1000, {asked}"
            lines.append(_at_least("1 if", asked, e and e["auc"], 0.92))
    if "when" in results:
        for time in ("1000", "5 t2"):
            e = _one(results["when"], kind="mlp", at=time)
            found = e["full"] if e else {}
            error, inside = found.get("error"), found.get("inside")
            asked = f"median error <= .10 decades at {time}, MLPs"
            lines.append(
                ("2 when", asked, shown(error), None if error is None else error[0] <= 0.10)
            )
            asked = f"80 % interval covers 75-85 % at {time}, MLPs"
            good = None if inside is None else 0.75 <= inside[0] <= 0.85
            lines.append(("2 when", asked, shown(inside, percent=True), good))
    if "stop" in results:
        e = _one(results["stop"], kind="mlp", rule="forecast, full", rate=0.02)
        if e:
            reached = _stop(e)
            good = e["kill"][0] <= 0.02 and e["saved"][0] >= 0.8
            lines.append(("3 stop", "<= 2 % killed, >= 80 % saved, MLPs", reached, good))
        e = _one(results["stop"], kind="cells", rule="forecast, full", rate=0.02)
        if e:
            others = [
                x["hindsight"] for x in results["stop"]
                if x["kind"] == "cells" and x["rate"] == 0.02 and "patience" in x["rule"]
            ]  # fmt: skip
            good = e["kill"][0] <= 0.05 and e["saved"][0] > max(others)
            asked = f"cells: <= 5 % killed, more saved than patience ({max(others):.1%})"
            lines.append(("3 stop", asked, _stop(e), good))
    if "unseen" in results:
        e = _one(results["unseen"], lot=split, rate=0.02)
        if e:
            good = e["kill"][0] <= 0.05 and e["saved"][0] >= 0.7
            asked = "transformers never seen: <= 5 % killed, >= 70 % saved"
            lines.append(("3 stop", asked, _stop(e), good))
    asked = "after 30 runs of one's own: <= 2 % killed, >= 90 % saved"
    lines.append(("3 stop", asked, "not measured here", None))
    if "calibration" in results:
        for at in ("step", "verdict"):
            e = _one(results["calibration"], at=at, way="full", stratum="random runs")
            if e:
                asked = f"ECE <= .05 at a random {at}, runs drawn at random"
                lines.append(("4 calibration", asked, f"{e['ece']:.3f}", e["ece"] <= 0.05))
                reached = f"p = {e['as_likely']:.3f} (perfect: {e['perfect']:.3f})"
                asked = "  not told apart from a perfect forecaster's there (p > .05)"
                lines.append(("4 calibration", asked, reached, e["as_likely"] > 0.05))
    if "ordinary" in results:
        stopped = sum(len(e["stopped"]) for e in results["ordinary"])
        runs = sum(e["runs"] for e in results["ordinary"])
        lines.append(("controls", "no stop in ordinary training", f"{stopped} of {runs} replays",
                      stopped == 0))  # fmt: skip
    return lines


def _stop(entry: dict[str, Any]) -> str:
    return (
        f"{entry['killed']}/{entry['grokkers']} killed, saved {shown(entry['saved'], percent=True)}"
    )


def text(lines: list[Line]) -> list[str]:
    """The bar as text."""
    word = {True: "yes", False: "NO", None: "-"}
    return [
        "The bar: asked, reached, cleared (by the figure itself, not by its interval)",
        "",
        *(
            f"{section:>14}  {asked:64} {reached:42} {word[good]}"
            for section, asked, reached, good in lines
        ),
    ]
