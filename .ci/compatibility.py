"""Run the tests with other versions of Python and of the packages, and print a row of the table.

    python .ci/compatibility.py                 # every row of the table in docs/reliability.md
    python .ci/compatibility.py oldest py313    # some of them
    python .ci/compatibility.py oldest --keep   # with the environment that is there, after a mend

Each row is a clone of the last commit and a virtual environment of its own under build/; a Python
that is not on the PATH (as ``python3.12``) is told and left out. Warnings are not errors here:
old packages warn of each other.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A Python and the packages that are held at a version."""

    python: str
    pins: tuple[str, ...]


_OLD = (
    "torch==2.6.0 numpy==1.24.4 scipy==1.12.0 tensorboard==2.16.2 matplotlib==3.8.0 rich==13.7.0 "
    "typer==0.16.0 jinja2==3.1.0 threadpoolctl==3.2.0 lightning==2.2.5 pytorch-lightning==2.2.5 "
    "transformers==5.0.0"
)
ROWS = {
    "oldest": Row("3.10", tuple(_OLD.split())),
    "py310": Row("3.10", ("torch==2.13.0",)),
    "py311": Row("3.11", ("torch==2.13.0",)),
    "py312": Row("3.12", ("torch==2.13.0",)),
    "py313": Row("3.13", ("torch==2.13.0",)),
    "newest": Row("3.13", ("torch", "numpy", "scipy", "lightning", "transformers")),
}
_SHOWN = ("torch", "numpy", "scipy", "lightning", "transformers")
_VERSIONS = "from importlib.metadata import version as v; print(*(v(p) for p in {}), sep=' | ')"


def run_row(name: str, row: Row, root: Path, keep: bool, more: list[str]) -> str:
    """A line of the table: versions, and what pytest said."""
    place = root / "build" / "compatibility" / name
    clone, log, venv = place / "clone", place / "log.txt", place / "venv"
    inside = str(venv / "bin" / "python")
    python = _python(row.python)
    if python is None:
        return f"| {name} | {row.python}: not installed here |" + " |" * (len(_SHOWN) + 1)
    shutil.rmtree(clone if keep else place, ignore_errors=True)
    _call(["git", "clone", "-q", str(root), str(clone)])
    if not (keep and venv.exists()):
        _call([python, "-m", "venv", str(venv)])
        _call([inside, "-m", "pip", "install", "-q", *row.pins, "-e", f"{clone}[test]"])
    shown = _call([inside, "-c", _VERSIONS.format(_SHOWN)]).strip()
    tests = [inside, "-m", "pytest", "-q", "-o", "filterwarnings=default", *more]
    with log.open("w") as out:
        subprocess.run(tests, cwd=clone, stdout=out, stderr=subprocess.STDOUT)
    said = re.findall(r"^.*(?:passed|failed|error).* in .*$", log.read_text(), re.MULTILINE)
    summary = said[-1].strip("= ") if said else "no summary"
    version = _call([inside, "-c", "import platform; print(platform.python_version())"]).strip()
    print(f"{name}: {log}", file=sys.stderr)
    return f"| {name} | {version} | {shown} | {summary} |"


def _python(version: str) -> str | None:
    """The first of that version on the PATH that runs: some tools put dummies there."""
    for folder in os.get_exec_path():
        found = shutil.which(f"python{version}", path=folder)
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return found
    return None


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; none = all")
    parser.add_argument("--keep", action="store_true", help="do not make the environment anew")
    args, more = parser.parse_known_args()  # the rest is pytest's
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| row | Python | " + " | ".join(_SHOWN) + " | tests |")
    print("|---" * (len(_SHOWN) + 3) + "|")
    for name in args.rows or ROWS:
        row = run_row(name, ROWS[name], Path(__file__).parent.parent, args.keep, more)
        print(row, flush=True)


if __name__ == "__main__":
    main()
