from __future__ import annotations

import subprocess
import sys

import grokwatch

#: What `import grokwatch` may not drag in: heavy, optional, or of use to some only.
HEAVY = [
    "torch", "matplotlib", "tensorboard", "rich", "typer", "click", "jinja2", "pandas", "yaml",
    "pyarrow",
    "scipy.optimize", "scipy.stats", "scipy.linalg", "scipy.sparse", "scipy.signal",
    "lightning", "transformers", "ray", "optuna",
    "grokwatch.integrations", "grokwatch.report", "grokwatch.sinks", "grokwatch.cli",
]  # fmt: skip

PROGRAM = f"""
import sys
import grokwatch
print([name for name in {HEAVY!r} if name in sys.modules])
monitor = grokwatch.Monitor(budget=100)
for step in range(100):
    monitor.update(step, train_loss=1.0, train_accuracy=step / 100, val_accuracy=step / 100)
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print([name for name in loaded if not name.startswith("scipy")])
"""


def test_import_loads_nothing_heavy_and_a_run_only_scipy():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split("\n") == ["[]", "[]", ""]


def test_import_time_is_numpy_and_little_more():
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", "import grokwatch"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    total, numpy = 0, 0
    for line in done.stderr.splitlines():
        own, cumulative, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            if name.strip() == "numpy":
                numpy = int(cumulative)
            if name.startswith(" grokwatch") and not name.startswith(" grokwatch."):
                total = int(cumulative)
    assert 0 < total - numpy < 500_000  # microseconds


def test_public_names():
    assert len(grokwatch.__all__) <= 8
    assert all(hasattr(grokwatch, name) for name in grokwatch.__all__)
    assert grokwatch.__version__.count(".") == 2
