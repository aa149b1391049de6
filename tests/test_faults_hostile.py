"""Files by which somebody means harm: memory, stack, paths, markup; nothing is ever unpickled."""

from __future__ import annotations

import ast
import html.parser
import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

import grokwatch.report
from grokwatch import replay
from grokwatch._bounds import BESIDE, DEPTH, LINE
from grokwatch.integrations._going_on import bring
from grokwatch.records import RecordError, Run, read_run, read_runs

ROOT = Path(__file__).parent.parent
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> </style>&amp;{{7*7}}\x1b[2J"

# -- code ----------------------------------------------------------------------------------------

#: Modules that run what they read, or may.
RUN_IT = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy"}


def sources() -> list[Path]:
    found = [ROOT / "setup.cfg"]
    for folder in ("grokwatch", "integrations", "examples"):
        found += [path for path in (ROOT / folder).rglob("*.py") if "out" not in path.parts]
    return found[1:]


def harm(tree: ast.AST) -> list[str]:
    """What in a program could run code out of a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in RUN_IT]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""] if (node.module or "").split(".")[0] in RUN_IT else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in ("eval", "exec", "compile", "__import__"):
                found.append(name)
            if name == "torch.load" and given.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False":
                found.append("allow_pickle")
            if name in ("yaml.load", "yaml.unsafe_load", "os.system") or "True" in given.get(
                "shell", ""
            ):
                found.append(name)
    return found


def test_nothing_runs_what_it_reads():
    assert len(sources()) > 100
    found = {path: harm(ast.parse(path.read_text(encoding="utf-8"))) for path in sources()}
    assert {str(path): what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "eval(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_test_would_see_it(line):
    assert harm(ast.parse(line))


def test_no_compressed_file_is_read(tmp_path):
    """So no bomb can be hidden in one."""
    for name in ("run.csv.gz", "run.jsonl.gz", "run.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b\x08\x00")
        with pytest.raises(RecordError, match="cannot read"):
            read_run(tmp_path / name)


# -- size and depth ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize("name", ["a.jsonl", "grokwatch.jsonl", "trainer_state.json", "run.csv"])
def test_nested_deeply(tmp_path, name, depth):
    deep = b"[" * depth + b"]" * depth
    content = b'{"step": 1, "log_history": ' + deep + b"}"
    if name == "run.csv":
        (tmp_path / name).write_text("step,train_loss\n1,1\n")
        (tmp_path / "run.json").write_bytes(content)
    else:
        (tmp_path / name).write_bytes(content + b"\n")
    with pytest.raises(RecordError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            read_run(tmp_path / name)


BOMBS = {
    "ten million columns": ("run.csv", "file.write(b','.join(b'%d' % i for i in range(10**7)))"),
    "a giant row": ("run.csv", "file.write(b'step,loss\\n'); file.write(b'1,' * 10**8)"),
    "a giant line": ("a.jsonl", "file.write(b' ' * 3 * 10**8)"),
    "a giant string": ("a.jsonl", "file.write(b'{\"step\": 1, \"a\": \"' + b'x' * 3 * 10**8)"),
    "a giant line of a record": (
        "grokwatch.jsonl",
        "file.write(b'{\"type\":\"run\",\"format\":1,\"settings\":{}}\\n' + b' ' * 3 * 10**8)",
    ),
    "a giant row of an export": (
        "m.csv",
        "file.write(b'run_id,key,value,step\\n' + b'a,' * 10**8)",
    ),
    "many steps of few bytes": (
        "grokwatch.jsonl",
        "file.write(b'{\"type\":\"run\",\"format\":1,\"settings\":{}}\\n{\"type\":\"observations\","
        "\"columns\":{\"train_loss\":{\"steps\":{\"from\":0,\"every\":1,\"count\":1000000000000},"
        "\"values\":[1]}}}\\n')",
    ),
    "a large tensor of few bytes": (
        "events.out.tfevents.1",
        "file.write(tensor())",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bombs(tmp_path, bomb):
    """In a process that may take half a gigabyte more than its imports: refused, in few words."""
    name, fill = bomb
    program = """
        import os, resource, struct, sys, warnings
        import numpy, scipy.io, tensorboard.util.tensor_util
        from tensorboard.compat.proto.event_pb2 import Event
        from grokwatch.records import RecordError, read_runs
        import grokwatch.replay
        def tensor():
            event = Event(step=1)
            value = event.summary.value.add(tag="loss")
            value.tensor.dtype = 1
            value.tensor.tensor_shape.dim.add(size=10**12)
            value.tensor.float_val.append(1.0)
            data = event.SerializeToString()
            return struct.pack("<Q", len(data)) + bytes(4) + data + bytes(4)
        path = sys.argv[1]
        with open(path, "wb") as file:
            FILL
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 5 * 10**8,) * 2)
        try:
            runs = read_runs(path)
            print("read", [len(s) for run in runs for s, _ in run.columns.values()])
        except RecordError as error:
            print("refused", len(str(error)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).replace("FILL", fill), tmp_path / name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    what, size = done.stdout.split(maxsplit=1)
    if name.startswith("events"):
        assert done.stdout == "read []\n" or what == "refused"
    else:
        assert what == "refused" and int(size) < 1000


def test_a_line_just_short_enough(tmp_path):
    path = tmp_path / "a.jsonl"
    head = b'{"step": 1, "loss": 0.5, "note": "'
    path.write_bytes(head + b"x" * (LINE - len(head) - 3) + b'"}\n')
    assert read_run(path).last_step == 1
    path.write_bytes(head + b"x" * (LINE - len(head) - 1) + b'"}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl:1: a line of more than 16,000,000"):
        read_run(path)


def test_settings_beside_a_run_are_small(tmp_path):
    (tmp_path / "run.csv").write_text("step,train_loss\n1,1\n")
    (tmp_path / "run.json").write_text('{"a": "' + "x" * BESIDE + '"}')
    with pytest.raises(RecordError, match=r"run\.json: larger than 1,000,000 bytes"):
        read_run(tmp_path / "run.csv")


# -- paths ---------------------------------------------------------------------------------------


def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "private.csv").write_text("step,train_loss\n1,1\n")
    (secret / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": 1}]}')
    runs = tmp_path / "runs"
    for number, (name, target) in enumerate([
        ("run.csv", "private.csv"),
        ("metrics.csv", "private.csv"),
        ("grokwatch.jsonl", "private.csv"),
        ("trainer_state.json", "trainer_state.json"),
        ("events.out.tfevents.1", "private.csv"),
        ("checkpoint-5", "."),
    ]):  # fmt: skip
        (runs / str(number)).mkdir(parents=True)
        (runs / str(number) / name).symlink_to(secret / target)
    (runs / "up").symlink_to("..")
    with pytest.raises(RecordError, match="no recorded run"):
        read_runs(runs)
    (runs / "inside").mkdir()
    (runs / "inside" / "real.csv").write_text("step,train_loss\n1,1\n2,1\n")
    (runs / "inside" / "linked.csv").symlink_to("real.csv")
    assert {run.last_step for run in read_runs(runs)} == {2}
    assert read_run(runs / "0" / "run.csv").last_step == 1  # named by the user: followed


@pytest.mark.parametrize("name", ["run.json", "hparams.yaml"])
def test_settings_are_not_read_from_elsewhere(tmp_path, name):
    (tmp_path / "elsewhere").write_text('{"budget": 7}' if name == "run.json" else "max_steps: 7")
    folder = tmp_path / "runs"
    folder.mkdir()
    csv = folder / ("run.csv" if name == "run.json" else "metrics.csv")
    csv.write_text("epoch,step,train_loss\n1,1,1\n" if name != "run.json" else "step,loss\n1,1\n")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert read_run(csv).settings == {}
    (folder / name).unlink()
    (folder / name).write_bytes((tmp_path / "elsewhere").read_bytes())
    assert read_run(csv).settings == {"budget": 7}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "metrics.csv", "x.tfevents", "a.json"])
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(RecordError, match="no recorded run"):
        read_runs(tmp_path)


def test_paths_inside_of_settings_are_text(tmp_path):
    """Nothing that a record or sidecar says is ever opened."""
    (tmp_path / "run.csv").write_text("step,train_loss\n1,1\n")
    (tmp_path / "run.json").write_text(
        json.dumps({"budget": 9, "checkpoint": "/etc/passwd", "log_dir": "../.."})
    )
    opened: set[str] = set()
    listening = [True]  # a hook stays for ever

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and listening:
            opened.add(str(args[0]))

    sys.addaudithook(hook)
    run = read_run(tmp_path / "run.csv")
    listening.clear()
    assert run.notes == {"checkpoint": "/etc/passwd", "log_dir": "../.."}
    assert {path for path in opened if not path.endswith((".py", ".pyc"))} == {
        str(tmp_path / "run.csv"),
        str(tmp_path / "run.json"),
    }


def test_a_checkpoint_cannot_have_other_files_copied(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    named = tmp_path / "a" / "grokwatch.jsonl"
    named.parent.mkdir()
    new = tmp_path / "run" / "grokwatch.jsonl"
    bring(secret, new)
    named.write_text("secret")
    bring(named, new)
    named.unlink()
    named.symlink_to(secret)
    bring(named, new)
    assert not new.exists()
    named.unlink()
    named.write_text('{"type":"run","format":1,"settings":{}}\n')
    bring(named, new)
    assert new.read_text() == named.read_text()


def test_a_saved_state_cannot_choose_another_folder(tmp_path):
    from tests.fault_programs import make

    with make(tmp_path) as watch:
        watch.train(loss=1.0)
        state = watch.state_dict()
    for name in ("../../elsewhere", "/tmp/elsewhere", "run-2/../../x", "other"):
        state["outlet"]["folder"] = name
        again = make(tmp_path)
        again.load_state_dict(state)
        again.train(loss=0.5)
        again.close()
        assert again.log_dir == tmp_path / "run"


# -- markup --------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """What a browser would take for markup."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def page(text: str) -> tuple[str, Tags]:
    """The report of two runs that say ``text`` wherever a run can say anything."""
    steps = range(1, 60)
    loss, accuracy = [2.0 / s for s in steps], [min(1.0, s / 30) for s in steps]
    columns = {
        "train_loss": (steps, loss),
        "train_accuracy": (steps, accuracy),
        "val_loss": (steps, loss),
        "val_accuracy": (steps, accuracy),
        f"column {text}": (steps, loss),
    }
    source = {"format": text, "names": {"train_loss": text, text: text}, "basis": [text]}
    notes = {text: text, "tags": [text], "hyper": {text: [text]}}
    runs = [Run(columns, {"budget": 100}, f"{n}{text}", notes, source) for n in "ab"]
    written = grokwatch.report.html_report([replay(run) for run in runs])
    seen = Tags()
    seen.feed(written)
    return written, seen


def test_hostile_text_is_text_everywhere():
    calm, hostile = page("calm")[1], page(HOSTILE)
    assert hostile[1].tags == calm.tags
    assert hostile[1].attributes == calm.attributes
    assert "<script>alert" not in hostile[0] and "<img src=x" not in hostile[0]
    assert "&lt;script&gt;alert(1)" in hostile[0] and "{{7*7}}" in hostile[0]


def test_a_hostile_file_name_is_text_on_page_and_terminal(tmp_path):
    name = "<img src=x onerror=alert(2)>\x1b[2J"
    (tmp_path / f"{name}.csv").write_text("step,train_loss\n1,1\n2,.5\n3,bad\n")
    out = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, "-m", "grokwatch", "replay", str(tmp_path / f"{name}.csv")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and "\x1b" not in done.stderr + done.stdout
    (tmp_path / f"{name}.csv").write_text("step,train_loss\n1,1\n2,.5\n")
    done = subprocess.run(
        [sys.executable, "-m", "grokwatch", "report", str(tmp_path / f"{name}.csv"), "-o", out],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    written = out.read_text()
    assert "&lt;img src=x" in written and "<img src=x" not in written
