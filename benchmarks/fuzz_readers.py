"""Broken and hostile files through every reader: a run, or one clear error, in bounded memory.

    python benchmarks/fuzz_readers.py SECONDS [--seed 0] [--log FILE]     # mutations, no tools
    python benchmarks/fuzz_readers.py SECONDS --atheris FOLDER            # guided by coverage

Both begin with a sample of each of the nine formats. The first mutates them at random; with
``--atheris`` (``pip install atheris``, Linux) libFuzzer looks for inputs that reach new code and
keeps them in FOLDER. An input is the number of a format, then the file. What is read is judged,
as ``grokwatch replay`` would.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

_MEMORY = 4_000_000_000  # bytes of address space beyond what the imports take

#: Format -> name of the file, and what is in it.
SAMPLES: dict[str, tuple[str, bytes]] = {
    "jsonl": (
        "grokwatch.jsonl",
        b'{"type":"run","format":1,"settings":{"budget":100,"chance":0.1},"notes":{"a":[1]}}\n'
        b'{"type":"observations","columns":{"train_loss":{"steps":{"from":1,"every":1,"count":4},'
        b'"values":[1.0,0.5,"NaN",0.25]},"val_accuracy":{"steps":[1,4],"values":[0.1,"Infinity"]}}}'
        b'\n{"type":"verdict","step":4}\n{"type":"resumed","step":2,"known":["train_loss"]}\n'
        b'{"type":"observations","columns":{"train_loss":{"steps":[3],"values":[0.5]}}}\n',
    ),
    "csv": (
        "run.csv",
        b'step,train_loss,val_accuracy,"odd ""one""",\n1,0.5,,x,\n2,.25e-1,0.5,"a\nb",\n'
        b"3,-0,nan,,\n7,inf,1.0,,",
    ),
    "rows": (
        "log.jsonl",
        b'{"step": 1, "train": {"loss": 0.5, "acc": 0.1}, "text": "a"}\n'
        b'{"step": 2.0, "train": {"loss": "NaN"}, "val/acc": null, "ok": true}\n{"step": 3, "lo',
    ),
    "lightning": (
        "metrics.csv",
        b"epoch,step,train_loss_step,train_loss_epoch,val_acc,lr-AdamW\n0,9,0.5,,,0.001\n"
        b"0,9,,0.75,,\n0,9,,,0.25,\n1,19,0.25,,,0.001\n",
    ),
    "grok": (
        "metrics.csv",
        b"epoch,step,train_loss,train_accuracy,val_loss,val_accuracy,val_perplexity,full_train_acc"
        b"\n0,1,4.5,1.03,4.6,1.0,99.0,\n10,11,0.1,99.5,9.0,2.0,1e3,99.0\n",
    ),
    "trainer_state": (
        "trainer_state.json",
        b'{"max_steps": 100, "logging_steps": 10, "log_history": [{"loss": 1.5, "grad_norm": 0.5, '
        b'"learning_rate": 0.001, "epoch": 0.1, "step": 10}, {"eval_loss": 2.0, "eval_accuracy": '
        b'0.5, "step": 10}, {"loss": 1.25, "step": 20}, {"train_runtime": 1.0, "step": 20}]}',
    ),
    "tensorboard": (
        "events.out.tfevents.1.x",
        # Two events: the version, and tag "loss" of step 3 with value 0.5; checksums are not read.
        b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7fK\x22\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x1a\x0d"
        b"brain.Event:2\x00\x00\x00\x00"
        b"\x1a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x10"
        b"\x03*\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00?\x00\x00\x00\x00\x00",
    ),
    "wandb": (
        "panel.csv",
        b'"Step","a - train/loss","a - train/loss__MIN","a - train/loss__MAX","b - val/acc"\n'
        b'"0","1.5","1.0","2.0",""\n"10","0.5","0.5","0.5","0.25"\n',
    ),
    "mlflow": (
        "metrics.csv",
        b"run_id,key,value,step,timestamp\nr1,train_loss,0.5,1,1700000000000\n"
        b"r1,val_accuracy,0.25,1,1700000000001\nr2,train_loss,NaN,3,1700000000002\n",
    ),
}
FORMATS = list(SAMPLES)
BESIDE = {"csv": "run.json", "lightning": "hparams.yaml", "grok": "hparams.yaml"}

#: Pieces that readers may trip over.
TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"-0.0", b"9223372036854775808",
    b"1" * 400, b"1" * 5000, b"1e400", b"null", b"true", b"{}", b"[]", b'""', b'"', b",", b"\n",
    b"\r\n", b"\r", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 300, b'{"a":' * 300,
    b'{"a":' * 120 + b"1" + b"}" * 120, b"step", b"train_loss", b"val_accuracy", b" - ", b"_step",
    b"_runtime", b"run_id,key,value,step", b'"count":1000000000', b'"every":0', b'"every":-1',
    b'"from":-5', b'"known":5', b'"type":"resumed","step":99999999999999999999', b"1,2,3\n",
    b"chance", b'{"step":[[1]]}', b"\xe2\x80\xae", b"1.", b".", b"+1", b"1_0", b"0x10", b";", b"\t",
]  # fmt: skip


class Reader:
    """Reads what it is given as a file of each format."""

    def __init__(self, folder: Path) -> None:
        import grokwatch
        from grokwatch.records import RecordError, read_runs

        self._folder, self._read, self._replay = folder, read_runs, grokwatch.replay
        self._error = RecordError
        self.read = self.refused = 0

    def __call__(self, data: bytes) -> None:
        """Read it; raises what no reader may raise."""
        if len(data) < 2:
            return
        format, guess, growing = FORMATS[data[0] % len(FORMATS)], data[1] & 1, bool(data[1] & 2)
        name, _ = SAMPLES[format]
        content, sidecar = data[2:], None
        if data[1] & 4 and format in BESIDE:
            content, _, rest = data[2:].partition(b"\x00")
            sidecar = self._folder / BESIDE[format]
            sidecar.write_bytes(rest)
        path = self._folder / name
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", UserWarning)  # something was repaired
                for run in self._read(path, format=None if guess else format, growing=growing)[:3]:
                    self._judge(run)
            self.read += 1
        except self._error as error:
            self.refused += 1
            if len(str(error)) > 3000:
                raise AssertionError("an error of more than 3000 letters") from error
        finally:
            if sidecar is not None:
                sidecar.unlink()
            path.unlink()

    def _judge(self, run: object) -> None:
        try:
            self._replay(run)  # type: ignore[arg-type]
        except self._error:
            raise
        except (TypeError, ValueError) as error:  # settings out of their range, as documented
            last = traceback.extract_tb(error.__traceback__)[-1]
            if not last.filename.endswith(("settings.py", "phase.py")):
                raise


def seeds() -> list[bytes]:
    """An input for each format, with and without guessing and a file beside."""
    found = []
    for number, (format, (_, content)) in enumerate(SAMPLES.items()):
        found += [bytes([number, flags]) + content for flags in (0, 1, 3)]
        if format in BESIDE:
            beside = b'{"budget": 50, "chance": 0.5}' if format == "csv" else b"lr: 0.1\nwd: 1\n"
            found.append(bytes([number, 4]) + content + b"\x00" + beside)
    return found


def mutated(r: random.Random, pool: list[bytes]) -> bytes:
    """One input of the pool, changed in a few places."""
    data = bytearray(r.choice(pool))
    for _ in range(r.randrange(1, 6)):
        at = r.randrange(2, len(data) + 1) if len(data) > 2 else len(data)
        how = r.randrange(7)
        if how == 0 and at < len(data):
            data[at] = r.randrange(256)
        elif how == 1:
            data[at:at] = r.choice(TOKENS)
        elif how == 2:
            del data[at : at + r.randrange(1, 20)]
        elif how == 3:
            data[at:at] = data[at : at + r.randrange(1, 60)]
        elif how == 4:
            data[at : at + r.randrange(1, 12)] = r.choice(TOKENS)
        elif how == 5:
            other = r.choice(pool)
            data[at:] = other[r.randrange(len(other)) :]
        elif len(data) > 1:
            data[1] = r.randrange(8)
    return bytes(data[:100_000])


def by_mutation(reader: Reader, seconds: float, seed: int) -> dict[str, object]:
    """Mutate for some seconds of wall clock; what was found."""
    r, pool, count = random.Random(seed), seeds(), 0
    crashes: dict[str, str] = {}
    kinds: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(r, pool)
        count += 1
        before = reader.read
        try:
            reader(data)
            if reader.read > before and len(pool) < 2000 and r.random() < 0.01:
                pool.append(data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            kinds[kind] += 1
            if kind not in crashes:
                crashes[kind] = traceback.format_exc()[-1500:] + repr(data[:400])
    found = {"inputs": count, "seed": seed, "seconds": seconds, "read": reader.read}
    return {**found, "refused": reader.refused, "crashes": dict(kinds), "told": crashes}


def by_coverage(reader: Reader, seconds: int, folder: Path) -> None:
    """Let atheris look for inputs that reach new code; ends the process."""
    import atheris

    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(data)
    words = folder.with_suffix(".dict")
    lines = ['"' + "".join(f"\\x{b:02x}" for b in token) + '"' for token in TOKENS if token]
    words.write_text("\n".join(line for line in lines if len(line) < 500))
    limits = [f"-max_total_time={seconds}", "-max_len=20000", "-timeout=60", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], str(folder), f"-dict={words}", *limits], reader)
    atheris.Fuzz()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", type=Path, metavar="FOLDER")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    temporary = tempfile.mkdtemp()
    if options.atheris is not None:
        import atheris

        with atheris.instrument_imports(include=["grokwatch"]):
            reader = Reader(Path(temporary))
            import grokwatch.cli  # noqa: F401
        by_coverage(reader, int(options.seconds), options.atheris)
    reader = Reader(Path(temporary))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    text = json.dumps(by_mutation(reader, options.seconds, options.seed), indent=1)
    print(text)
    if options.log is not None:
        options.log.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
