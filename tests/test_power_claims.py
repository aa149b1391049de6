"""examples/power_claims.py: claims that can agree, disagree and be beyond reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from power_claims import (
    all_claims,
    monotone_in_data,
    no_grok_before_a_spike,
    sooner_with_more_data,
    summary,
)
from power_tasks import task


def made_up(**changes: Any) -> dict[str, Any]:
    """A run that agrees with everything."""
    one: dict[str, Any] = {
        "fraction": 0.5,
        "decay": 0.01,
        "steps": 2000,
        "t4 over t2": 10.0,
        "commutative": True,
        "mirror share": 0.5,
        "chance": 0.01,
        "val accuracy at t2": 0.5,
        "last val accuracy": 1.0,
        "lowest val accuracy after t4": 0.97,
        "jumps": 2,
        "slingshots": 3,
        "first slingshot": 300,
        "slingshots before t4": 1,
        "grokwatch": {"t2": 100, "t4": 1000},
    }
    return one | changes


def verdicts(sweeps: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {claim["claim"]: claim["verdict"] for claim in all_claims(sweeps)}


def test_claims_can_agree_disagree_and_be_beyond_reach() -> None:
    never: dict[str, Any] = {"t2": 100, "t4": None}
    nothing = made_up(
        **{"t4 over t2": None, "grokwatch": never, "slingshots before t4": None, "jumps": 0},
        **{"lowest val accuracy after t4": None, "slingshots": 0},
    )
    assert set(verdicts({"-": [nothing]}).values()) == {"not testable here", "disagrees"}
    other = made_up(commutative=False, **{"val accuracy at t2": 0.02, "mirror share": 0.0})
    by_decay = made_up(decay=1.0, **{"slingshots before t4": 0})
    spiky = nothing | {"slingshots": 2, "fraction": 0.4}
    good = verdicts({"+": [made_up(), spiky], "/": [other, by_decay]})
    assert set(good.values()) == {"agrees"}
    bad = {
        "late generalisation": made_up(**{"t4 over t2": 1.1}),
        "no grokking before the first loss spike, in his setting": made_up(
            **{"slingshots before t4": 0}
        ),
        "no un-grokking": made_up(**{"last val accuracy": 0.4}),
        "two-step jumps occur": made_up(jumps=1),
    }
    for claim, one in bad.items():
        assert verdicts({"+": [one]})[claim] == "disagrees"
    low = made_up(**{"val accuracy at t2": 0.01})
    base = "symmetric operators start from a high base"
    assert verdicts({"+": [low], "/": [other]})[base] == "disagrees"
    assert verdicts({"+": [low]})[base] == "not testable here"


def test_data_and_time() -> None:
    at = [
        made_up(fraction=r, grokwatch={"t4": t}) for r, t in ((0.6, 100), (0.5, 400), (0.4, None))
    ]
    assert monotone_in_data({"+": at})["verdict"] == "agrees"
    assert sooner_with_more_data({"+": at})["verdict"] == "agrees"
    at[0]["grokwatch"] = {"t4": 450}  # as good as the same
    assert sooner_with_more_data({"+": at})["verdict"] == "agrees"
    at[0]["grokwatch"] = {"t4": 500}
    assert monotone_in_data({"+": at})["verdict"] == "agrees"
    assert sooner_with_more_data({"+": at})["verdict"] == "disagrees"
    at[0]["grokwatch"] = {"t4": None}
    assert monotone_in_data({"+": at})["verdict"] == "disagrees"
    assert "40% never, 50% 400, 60% never" in sooner_with_more_data({"+": at})["here"]
    assert monotone_in_data({"+": at[2:]})["verdict"] == "not testable here"


def test_a_run_that_generalises_at_once_says_nothing_about_spikes() -> None:
    soon = made_up(**{"t4 over t2": 1.2, "slingshots before t4": 0})
    assert no_grok_before_a_spike([soon])["verdict"] == "not testable here"


def test_summary_of_a_run() -> None:
    found = {
        "curves": {
            "loss": [1.0] * 401,
            "val_step": [0, 100, 200, 300, 400],
            "val_accuracy": [0.0, 0.2, 0.4, 1.0, 0.9],
        },
        "grokwatch": {"t2": 150, "t4": 300},
        "spikes": [(160, 2.0), (250, 3.5), (350, 1.0)],
        "signals": {"transition_jumps": 2.0, "transition_r2": 0.99},
    }
    one = summary(found, task("+", 7), {"fraction": 0.5, "decay": 0.01, "seed": 0})
    assert one["steps"] == 401 and one["t4 over t2"] == 2.0 and one["commutative"]
    assert one["val accuracy at t2"] == np.mean([0.2, 0.4])
    assert one["lowest val accuracy after t4"] == one["last val accuracy"] == 0.9
    assert (one["slingshots"], one["slingshots before t4"], one["first slingshot"]) == (3, 2, 160)
    assert one["largest slingshot, decades"] == 3.5 and one["jumps"] == 2
