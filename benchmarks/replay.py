"""What a replay costs: of a CSV beside ``pandas.read_csv``, of event files beside TensorBoard.

    python -m benchmarks.replay [--rows 1000000] [--repeats 5] [--row-by-row]

Prints processor seconds (median of the repeats, and their range), their ratio to the first line of
each table, and the ratio of the times on the clock: recent versions of pandas read in several
threads, which saves no work but time where cores are idle. Then the same as commands, each in a
process of its own, as at the shell. Needs pandas.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grokwatch import Monitor, replay
from grokwatch.records import Run, read_run, write_csv

Times = dict[str, list[tuple[float, float]]]


def grokking_run(rows: int, dense: bool) -> Run:
    """A run that groks: loss and accuracy at every step; validation every 100, or all ``dense``."""
    noise = np.random.default_rng(0)
    step = np.arange(rows)
    learnt = 1 / (1 + np.exp(-(step - rows / 50) / (rows / 400)))
    late = 1 / (1 + np.exp(-(step - rows / 2) / (rows / 40)))
    loss = 4.5 * (1 - learnt) + 1e-3 * np.exp(noise.normal(0, 0.2, rows))
    val = step if dense else step[::100]
    columns = {"train_loss": (step, loss), "train_accuracy": (step, learnt)}
    columns["val_loss"] = (val, 6 * (1 - late[val]) + 0.01)
    columns["val_accuracy"] = (val, 0.01 + 0.98 * late[val])
    if dense:
        columns["grad_norm"] = (step, np.exp(noise.normal(0, 0.3, rows)))
        columns["weight_norm"] = (step, 50 - 20 * late)
    return Run(columns, {"budget": rows, "chance": 0.01})


def write_events(run: Run, folder: Path) -> int:
    """Write a run as an event file, one scalar an event as SummaryWriter does; how many."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    count = 0
    with (folder / "events.out.tfevents.0.benchmark").open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for step, row in run.rows():
            for name, number in row.items():
                value = Summary.Value(tag=name.replace("_", "/"), simple_value=number)
                event = Event(wall_time=1.7e9 + step, step=step, summary=Summary(value=[value]))
                writer.write(event.SerializeToString())
                count += 1
        writer.flush()
    return count


def measure(works: dict[str, Callable[[], object]], repeats: int) -> Times:
    """Processor and clock seconds of each, in turns: a busy machine disturbs all alike."""
    taken: Times = {name: [] for name in works}
    for _ in range(repeats + 1):  # the first turn warms up
        for name, work in works.items():
            start, clock = spent(), time.perf_counter()
            work()
            taken[name].append((spent() - start, time.perf_counter() - clock))
    return {name: times[1:] for name, times in taken.items()}


def spent() -> float:
    """Processor seconds of this process and of its children that have ended."""
    taken = os.times()
    return time.process_time() + taken.children_user + taken.children_system


def show(taken: Times) -> None:
    """Print the table; the first line is what the others are compared with."""
    first = next(iter(taken))
    base = [statistics.median(times) for times in zip(*taken[first], strict=True)]
    print(f"{'':30} {'processor':>11} {'range':>12} {'ratio':>7} {'on the clock':>13}")
    for name, times in taken.items():
        spent, clock = zip(*times, strict=True)
        ratio = statistics.median(spent) / base[0]
        ratio_clock = statistics.median(clock) / base[1]
        spread = f"{min(spent):.2f}-{max(spent):.2f}"
        print(
            f"{name:30} {statistics.median(spent):9.3f} s {spread:>12} {ratio:7.2f} "
            f"{ratio_clock:13.2f}"
        )


def row_by_row(run: Run) -> None:
    """What a replay would do without the bulk path."""
    monitor = Monitor(**run.settings)
    for step, row in run.rows():
        monitor.update(step, **row)


def csv_table(run: Run, what: str, repeats: int, singly: bool) -> None:
    """Print what a CSV of the run costs."""
    import pandas

    def one_thread(path: Path) -> None:
        with pandas.option_context("mode.max_threads", 1):
            pandas.read_csv(path)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.csv"
        write_csv(run, path)
        print(f"\nCSV, {path.stat().st_size / 1e6:.0f} MB: {what}")
        works: dict[str, Callable[[], object]] = {"pandas.read_csv": lambda: pandas.read_csv(path)}
        try:
            pandas.get_option("mode.max_threads")
            works["the same, one thread"] = lambda: one_thread(path)
        except pandas.errors.OptionError:  # this version has one thread
            pass
        works["grokwatch reads the file"] = lambda: read_run(path)
        works["grokwatch judges what it read"] = lambda: replay(run)
        works["grokwatch.replay of the file"] = lambda: replay(path)
        taken = measure(works, repeats)
    if singly:
        taken["Monitor.update row by row"] = measure({"": lambda: row_by_row(run)}, 1)[""]
    show(taken)


def commands_table(run: Run, what: str, repeats: int) -> None:
    """Print what the same costs at the shell, the start of Python and all imports included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.csv"
        write_csv(run, path)
        reading = "import pandas, sys; pandas.read_csv(sys.argv[1])"

        def launch(*arguments: str) -> None:
            command = [sys.executable, *arguments, str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode not in (0, 3):  # 3: the run may be stopped
                raise RuntimeError(done.stderr)

        print(f"\nThe same as commands: {what}")
        works: dict[str, Callable[[], object]] = {
            "python -c '... read_csv(...)'": lambda: launch("-c", reading),
            "grokwatch replay": lambda: launch("-m", "grokwatch", "replay"),
        }
        show(measure(works, repeats))


def events_table(rows: int, repeats: int) -> None:
    """Print what a TensorBoard folder with as many events as ``rows`` costs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = grokking_run(round(rows / 2.02), dense=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write_events(run, folder)
        print(f"\nTensorBoard folder, {count:,} events")
        works: dict[str, Callable[[], object]] = {
            "TensorBoard's EventAccumulator": lambda: EventAccumulator(
                name, size_guidance={"scalars": 0}
            ).Reload(),
            "grokwatch reads the folder": lambda: read_run(folder),
            "grokwatch.replay of the folder": lambda: replay(folder, **run.settings),
        }
        show(measure(works, repeats))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row-by-row", action="store_true", help="Also without the bulk path.")
    options = parser.parse_args()
    import pandas

    warnings.simplefilter("error")
    print(
        f"{options.rows:,} rows; {options.repeats} repeats; pandas {pandas.__version__}; "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}"
    )
    sparse, dense = (grokking_run(options.rows, dense) for dense in (False, True))
    csv_table(sparse, "validation every 100 steps", options.repeats, options.row_by_row)
    csv_table(dense, "six columns, all at every step", options.repeats, options.row_by_row)
    commands_table(sparse, "validation every 100 steps", options.repeats)
    commands_table(dense, "six columns, all at every step", options.repeats)
    events_table(options.rows, min(options.repeats, 2))


if __name__ == "__main__":
    main()
