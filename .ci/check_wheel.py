"""Builds wheel and sdist and checks, in a fresh environment, that the wheel alone works."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "grokwatch/integrations/pytorch.py",
    "grokwatch/py.typed",
    "grokwatch/signals/phase.py",
    "grokwatch/forecast/shipped.json",
    "grokwatch/report/page.html",
)
PROGRAM = """
import sys, grokwatch
monitor = grokwatch.Monitor(budget=20_000, chance=0.05)
for step in range(0, 2000, 10):
    seen = {"train_accuracy": min(1.0, step / 100), "val_loss": 3.0 + step, "val_accuracy": 0.05}
    verdict = monitor.update(step, train_loss=1.0, **seen)
assert verdict.probability is not None and "comparable runs" in verdict.reason, verdict
assert "torch" not in sys.modules, "import grokwatch must not load torch"
assert "site-packages" in grokwatch.__file__, grokwatch.__file__
import grokwatch.integrations
"""


def main() -> None:
    """Fail with a message if the wheel lacks a file or does not import."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "build", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        missing = [name for name in NEEDED if name not in names]
        strays = sorted(n for n in names if n.startswith(("integrations/", "tests/", "examples/")))
        if missing or strays:
            sys.exit(f"the wheel lacks {missing} and should not hold {strays}")
        home = Path(folder) / "venv"
        venv.create(home, with_pip=True)
        python = str(home / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "numpy", "scipy"]
        subprocess.run(pip, check=True)
        subprocess.run([*pip[:-2], "--no-deps", str(wheel)], check=True)
        subprocess.run([python, "-c", PROGRAM], check=True, cwd=folder)
    print(f"wheel holds {len(names)} files and imports on its own")


if __name__ == "__main__":
    main()
