"""How much of a file is believed: a broken or hostile one may not take the memory or the stack."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, AnyStr

from grokwatch._run import RecordError

LINE = 16_000_000  # bytes (or letters) of one line; a chunk of grokwatch's own record has 1e5
DOCUMENT = 256_000_000  # bytes of one JSON document
BESIDE = 1_000_000  # bytes of what lies beside a run and holds a few settings
DEPTH = 100  # containers inside one another


def lines(file: IO[AnyStr], path: Path, limit: int = LINE) -> Iterator[AnyStr]:
    """The lines of a file.

    Raises:
        RecordError: a line longer than ``limit``.
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise RecordError(f"{path}:{number}: a line of more than {limit:,} characters.")
        yield line


def document(path: Path, limit: int = DOCUMENT) -> Any:
    """What a JSON file holds.

    Raises:
        RecordError: not JSON, nested too deeply, or larger than ``limit`` bytes.
    """
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise RecordError(f"{path}: larger than {limit:,} bytes.")
    try:
        return parsed(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordError(f"{path}{line}: not JSON: {error}.") from None


def parsed(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError, RecursionError: not JSON, or nested too deeply.

    >>> parsed('{"a": [1]}')
    {'a': [1]}
    >>> parsed(300 * "[" + 300 * "]")
    Traceback (most recent call last):
    ValueError: nested more than 100 deep
    """
    value = json.loads(text)
    if isinstance(text, bytes):
        brackets = text.count(b"[") + text.count(b"{")
    else:
        brackets = text.count("[") + text.count("{")
    if brackets > DEPTH and _deeper(value):
        raise ValueError(f"nested more than {DEPTH} deep")
    return value


def _deeper(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [v for v in one.values() if isinstance(v, dict | list)]
            elif isinstance(one, list):
                inner += [v for v in one if isinstance(v, dict | list)]
        if not inner:
            return False
        level = inner
    return True


def beside(path: Path, run: Path) -> bool:
    """Whether a file of settings lies beside its run, not elsewhere by way of a link."""
    if not path.is_file():
        return False
    return path.resolve().parent in (run.parent.resolve(), run.resolve().parent)


def inside(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Those that are files (no pipes, which never end) of a folder, not links that lead out."""
    root = folder.resolve()
    return [path for path in paths if path.is_file() and path.resolve().is_relative_to(root)]
