"""How well single features, and learning rate times weight decay alone, rank the ``fit`` MLPs.

    python -m benchmarks.forecast.single

Area under the ROC curve (0.5 = chance) for "generalises later", among the runs that have not yet;
everything logged. A feature that ranks the wrong way round is shown turned round, marked "-".
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.forecast.fit import cached_rows
from benchmarks.forecast.samples import at, table
from grokwatch.forecast.features import NAMES


def main() -> None:
    """Print the table."""
    rows = cached_rows()
    mlps = table(rows)
    mlps = mlps[(mlps.split == "fit") & (mlps.kind == "mlp") & (mlps.variant == 0)]
    for name, when in {
        "400": np.full(len(mlps.step), 400.0),
        "1000": np.full(len(mlps.step), 1000.0),
        "5 t2": 5 * mlps.t2,
    }.items():
        now = mlps[at(mlps, when)]
        later = now.generalises
        metas = [rows.metas[run] for run in now.run]
        product = np.array([meta["lr"] * meta["weight_decay"] for meta in metas])
        print(f"\nat {name}: {len(later)} runs, {later.sum()} generalise later")
        print(f"  {'lr x wd':24} {roc_auc_score(later, product):.3f}")
        found = []
        for index, feature in enumerate(NAMES):
            known = np.isfinite(now.x[:, index])
            if known.mean() > 0.9:
                area = roc_auc_score(later[known], now.x[known, index])
                found.append((max(area, 1 - area), "-" if area < 0.5 else " ", feature))
        for area, sign, feature in sorted(found, reverse=True)[:6]:
            print(f"  {sign}{feature:23} {area:.3f}")


if __name__ == "__main__":
    main()
