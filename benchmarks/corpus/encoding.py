"""How recorded numbers become 16-bit codes and back, and shards become files.

Losses and norms span 1e-13 to 1e7, too wide for float16: they are stored as a code of log10 with
steps of .0003 decades (relative error at most .04 %). Accuracies are stored as the number of
correct examples, which is exact. Margins are float16 (relative error .05 %). The first 400
training losses are float32, untouched, because second differences are taken of them.
"""

from __future__ import annotations

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import loop

Codes = NDArray[np.uint16]

LOGARITHMIC, COUNT, HALF = "logarithmic", "count", "half"
# Column of the corpus: place in a dense row, code, and for counts the size that divides it.
COLUMNS: dict[str, tuple[int, str, str]] = {
    "train_loss": (loop.LOSS_COL, LOGARITHMIC, ""),
    "train_accuracy": (loop.CORRECT, COUNT, "n_batch"),
    "val_loss": (loop.VAL_LOSS, LOGARITHMIC, ""),
    "val_accuracy": (loop.VAL_CORRECT, COUNT, "n_val"),
    "val_margin": (loop.VAL_MARGIN, HALF, ""),
    "grad_norm": (loop.GRAD, LOGARITHMIC, ""),
    "weight_norm": (loop.WEIGHT, LOGARITHMIC, ""),
    "train_loss_peak": (loop.PEAK, LOGARITHMIC, ""),
}
_LOWEST, _DECADES, _STEPS, _NOT_FINITE = -13.0, 20.0, 65533, 65535


def encode(values: NDArray[np.float64], code: str) -> Codes:
    """Turn values into 16-bit codes; what is not finite becomes 65535.

    >>> decode(encode(np.array([0.0, 2.5, np.inf]), LOGARITHMIC), LOGARITHMIC).round(2)
    array([0. , 2.5, nan])
    """
    finite = np.isfinite(values)
    if code == HALF:
        clipped = np.where(finite, np.clip(values, -65504, 65504), np.nan)
        return clipped.astype(np.float16).view(np.uint16)
    if code == COUNT:
        return np.where(finite & (values >= 0), values, _NOT_FINITE).astype(np.uint16)
    with np.errstate(all="ignore"):
        decades = np.log10(np.maximum(np.where(finite, values, 1), 10**_LOWEST)) - _LOWEST
    codes = np.clip(np.round(decades / _DECADES * _STEPS), 0, _STEPS) + 1
    codes = np.where(values <= 10**_LOWEST, 0, codes)
    return np.where(finite, codes, _NOT_FINITE).astype(np.uint16)


def decode(codes: Codes, code: str, size: int = 1) -> NDArray[np.float64]:
    """Turn codes back into values; counts are divided by `size`."""
    if code == HALF:
        return codes.view(np.float16).astype(np.float64)
    values = codes.astype(np.float64)
    if code == COUNT:
        values = values / size
    else:
        values = np.where(codes == 0, 0, 10 ** ((values - 1) / _STEPS * _DECADES + _LOWEST))
    return np.where(codes == _NOT_FINITE, np.nan, values)


def to_arrays(records: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Lay the records of one unit out as the arrays of a shard."""
    rows = np.concatenate([r["rows"] for r in records])
    codes = np.stack([encode(rows[:, place], code) for place, code, _ in COLUMNS.values()])
    # Differences (modulo 65536, so exactly reversible) with bytes apart compress best.
    changes = np.diff(codes, axis=1, prepend=np.uint16(0)).astype("<u2")
    text = json.dumps({**about, "runs": [r["meta"] for r in records]}, sort_keys=True)
    return {
        "about": np.frombuffer(text.encode(), dtype=np.uint8),
        "early": np.stack([r["early"] for r in records]).astype("<f4").view(np.uint8),
        "steps": rows[:, loop.STEP].astype("<i4"),
        "lengths": np.array([len(r["rows"]) for r in records], dtype="<i4"),
        "codes": np.stack([changes & 255, changes >> 8]).astype(np.uint8),
    }


def from_arrays(shard: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The description of a shard and its records: `meta`, `early`, `steps`, `codes`."""
    about = json.loads(bytes(shard["about"]).decode())
    halves = shard["codes"].astype(np.uint16)
    codes = np.cumsum(halves[0] + (halves[1] << 8), axis=1, dtype=np.uint16)
    ends = np.cumsum(shard["lengths"])
    early = shard["early"].view("<f4")
    records = []
    for i, (end, length) in enumerate(zip(ends, shard["lengths"], strict=True)):
        span = slice(end - length, end)
        records.append(
            {
                "meta": about["runs"][i],
                "early": early[i],
                "steps": shard["steps"][span],
                "codes": dict(zip(COLUMNS, codes[:, span], strict=True)),
            }
        )
    return about, records


def write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a shard so that it is either whole or absent, without dates: same runs, same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)
    os.replace(temporary, path)
