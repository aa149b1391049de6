"""Which ordinary training runs there are: ten scenarios of eight runs, nothing grokking-like.

They are the controls on which a monitor must not recommend stopping an unpromising run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RUNS_PER_SCENARIO = 8
_NO_LABELS = ("train_accuracy", "val_accuracy", "val_margin")
SCENARIOS: dict[str, dict[str, Any]] = {
    "healthy": {"n_train": (900, 1190), "horizon": (1000, 3000)},
    "few_samples": {"n_train": (40, 150), "horizon": (1500, 5000)},
    "noisy_labels": {"n_train": (400, 1100), "noise": (0.1, 0.5), "horizon": (2000, 6000)},
    "random_labels": {"n_train": (150, 500), "noise": (1.0, 1.0), "horizon": (2000, 6000)},
    "fine_tuning": {"n_train": (100, 500), "horizon": (1000, 4000), "pretrained": True},
    "regression": {"dataset": ("diabetes", "friedman"), "n_train": (150, 300)},
    "regularised": {"n_train": (200, 1100), "regularised": True},
    "tabular": {"dataset": ("breast_cancer", "wine"), "n_train": (60, 120)},
    "loss_only": {"n_train": (150, 1100), "absent": _NO_LABELS},
    "no_validation": {
        "n_train": (150, 1100),
        "absent": ("val_loss", "val_accuracy", "val_margin"),
    },
}  # fmt: skip


def ordinary_configs(unit: int) -> list[dict[str, Any]]:
    """The runs of one scenario."""
    rng = np.random.default_rng([2026, 9, unit])
    name = list(SCENARIOS)[unit]
    return [_draw(name, SCENARIOS[name], place, rng) for place in range(RUNS_PER_SCENARIO)]


def _draw(
    name: str, scenario: dict[str, Any], place: int, rng: np.random.Generator
) -> dict[str, Any]:
    optimiser = ("adam", "sgd", "adamw")[place % 3]
    regularised = bool(scenario.get("regularised"))
    low, high = (0.01, 0.1) if optimiser == "sgd" else (3e-4, 5e-3)
    names = scenario.get("dataset", ("digits",))
    dataset = names[place % len(names)]
    absent = _NO_LABELS if name == "regression" else scenario.get("absent", ())
    rate = float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.2g}")
    if scenario.get("pretrained"):
        rate = float(f"{rate / 5:.2g}")
    return {
        "architecture": "mlp",
        "scenario": name,
        "dataset": dataset,
        "group": f"ordinary|{name}|{dataset}|{place // 2}",
        "n_train": int(rng.integers(*_span(scenario["n_train"]))),
        "noise": round(float(rng.uniform(*scenario.get("noise", (0.0, 0.0)))), 2),
        "pretrained": bool(scenario.get("pretrained")),
        "width": int(rng.choice([32, 64, 128])),
        "depth": int(rng.choice([1, 2, 3])),
        "activation": str(rng.choice(["relu", "gelu", "tanh"])),
        "dropout": float(rng.choice([0.1, 0.3, 0.5])) if regularised and place % 2 else 0.0,
        "label_smoothing": 0.1 if regularised and place % 4 < 2 else 0.0,
        "loss": "mse" if name == "regression" else "cross_entropy",
        "optimiser": optimiser,
        "lr": rate,
        "weight_decay": float(rng.choice([0.0, 1e-4, 1e-2])),
        "schedule": str(rng.choice(["constant", "cosine", "steps"])),
        "batch_size": int(rng.choice([0, 32, 64])),
        "dtype": "float32",
        "seed": int(rng.integers(2**31)),
        "horizon": int(rng.integers(*_span(scenario.get("horizon", (1000, 3500)))) // 100 * 100),
        "absent": list(absent),
    }


def _span(limits: tuple[int, int]) -> tuple[int, int]:
    return limits[0], limits[1] + 1
