"""Curvature inside watch and the callbacks: what is recorded, that it is replayed, no harm."""

from __future__ import annotations

import copy
import logging
import random

import numpy as np
import pytest
import torch
import torchmetrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

import grokwatch
from grokwatch._csv import write_csv
from grokwatch.geometry._pace import Pace
from grokwatch.geometry.curvature import hessian_extremes
from grokwatch.geometry.probe import CurvatureProbe
from grokwatch.ingest import MEASUREMENTS
from grokwatch.integrations import huggingface, lightning
from grokwatch.integrations._lightning_curvature import training_loss
from grokwatch.integrations.tensorboard import CURVATURE, LAYOUT
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.hf_training import Watched, make
from tests.lightning_nets import NETS, PACKAGES, QUIET, Batches, loaders, spy_on, trainer
from tests.nets import P, Spy, Training

pytestmark = [pytest.mark.filterwarnings(text) for text in QUIET]


class Net(nn.Module):
    """Dropout and BatchNorm: random numbers and running means to disturb."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(2 * P, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, P)
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None):
        logits = self.body(one_hot(x, P).float().flatten(1))
        return logits if labels is None else {"loss": cross_entropy(logits, labels)}


class Often(CurvatureProbe):
    """Measures at every step; the clock may not decide what a test sees."""

    def due(self, now=None):
        super().due(now)
        return self.batch is not None


@pytest.fixture
def often(monkeypatch):
    """Every probe measures at every step."""
    monkeypatch.setattr(Pace, "due", lambda *_: True)


def columns(folder):
    found = read_run(folder / "grokwatch.jsonl").columns
    return {name: found[name] for name in found if name.startswith("hessian_")}


def same(a, b):
    """Whether two trained things hold the same bits."""
    one, two = a.state_dict(), b.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad)
    assert [m.training for m in a.modules()] == [m.training for m in b.modules()]


def random_numbers():
    """The next ones of every generator."""
    return torch.rand(3).tolist(), random.random(), np.random.rand()


# -- a loop of one's own ----------------------------------------------------------------------


def loop(folder, steps=40, probed=True, **changes):
    """Train Net; the watch, the model, and what the generators give afterwards."""
    model = Net()
    x, y = Batches(1)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    curvature = Often(batch=(x[:50], y[:50])) if probed else False
    settings = {"budget": 100, "log_dir": folder, "curvature": curvature, **changes}
    with grokwatch.watch(model, optimizer, **settings) as watch:
        spy = Spy(watch)
        for step in range(steps):
            chosen = torch.randint(len(x), (64,))
            loss = cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.train(loss=loss)
            if step % 10 == 9:
                with torch.no_grad():
                    watch.validate(logits=model.eval()(x), targets=y)
                model.train()
    return watch, model, spy, random_numbers()


def test_training_is_the_same_bit_for_bit(tmp_path):
    watch, model, _, after = loop(tmp_path / "on")
    _, plain, _, then = loop(tmp_path / "off", probed=False)
    same(model, plain)
    assert after == then
    assert len(columns(watch.log_dir)["hessian_max"][0]) == 40


def test_what_is_recorded_and_replayed(tmp_path):
    watch, _, spy, _ = loop(tmp_path / "run", curvature=Often(batch=Batches(1)[0], edge=True))
    found = columns(watch.log_dir)
    assert set(found) == {name for name in MEASUREMENTS if name.startswith("hessian_")}
    assert found["hessian_max"][0].tolist() == list(range(1, 41))
    run = read_run(watch.log_dir / "grokwatch.jsonl")
    assert run.notes["curvature"] == {"batch": "317 examples", "mode": "eval"}
    again = {verdict.step: verdict for verdict in replay(run).verdicts}
    assert again == spy.verdicts  # bit for bit
    for name, (_, values) in found.items():
        assert watch.verdict.signals[name] == values[-1]
    write_csv(run, tmp_path / "copy.csv")
    assert replay(tmp_path / "copy.csv").verdicts == replay(run).verdicts
    events = EventAccumulator(str(watch.log_dir)).Reload()
    for name, (steps, _) in found.items():
        assert [e.step for e in events.Scalars(f"grokwatch/{name}")] == steps.tolist()
    *_, page = events.Tensors("custom_scalars__config__")  # TensorBoard shows the last one
    layout = layout_pb2.Layout.FromString(page.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == [*LAYOUT, *CURVATURE]
    charts = [chart for charts in CURVATURE.values() for _, chart in charts.values()]
    assert {tag for chart in charts for tag in chart} <= set(events.Tags()["scalars"])


def test_the_number_is_that_of_the_weights_before_the_step(tmp_path):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 1, bias=False), torch.randn(30, 4), torch.randn(30, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    quartic = lambda model, batch: (model(batch[0]) ** 4).mean()  # noqa: E731
    probe = Often(quartic, batch=(x, y), name="my data")
    with grokwatch.watch(model, optimizer, budget=9, log_dir=tmp_path, curvature=probe) as watch:
        before = copy.deepcopy(model)
        quartic(model, (x, y)).backward()
        optimizer.step()
        watch.train(loss=1.0)
    exact = hessian_extremes(lambda: quartic(before, (x, y)), before)
    assert watch.verdict.signals["hessian_max"] == pytest.approx(exact.lambda_max, rel=1e-5)
    record = read_run(watch.log_dir / "grokwatch.jsonl")
    assert record.columns["hessian_max"][0].tolist() == [1]
    assert record.notes["curvature"]["batch"] == "my data"


def test_true_takes_the_first_batch_if_its_loss_is_the_cross_entropy(tmp_path, caplog, often):
    caplog.set_level(logging.INFO, logger="grokwatch")
    plain, training = Training(dropout=0.2), Training(dropout=0.2)  # each seeds
    with grokwatch.watch(
        training.model, training.optimizer, budget=500, log_dir=tmp_path, curvature=True
    ) as watch:
        training.run(watch, 60, validate_every=100)
    assert not training.model._forward_hooks
    found = columns(watch.log_dir)
    assert len(found["hessian_max"][0]) >= 1 and found["hessian_max"][1][0] > 0
    assert "curvature is measured on the first training batch, 317 examples" in caplog.text
    probe = watch._prober.probe
    assert torch.equal(probe.batch["args"][0], training.x)
    assert torch.equal(probe.batch["targets"], training.y)
    Training(dropout=0.2)  # seeds
    while plain.steps < 60:
        plain.step()
    same(training.model, plain.model)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (lambda loss, logits, y: {"loss": loss}, "must be given loss, logits and targets"),
        (
            lambda loss, logits, y: {"loss": loss, "logits": 1 * logits, "targets": y},
            "the logits are not what the model returned last",
        ),
        (
            lambda loss, logits, y: {"loss": 1.1 * loss, "logits": logits, "targets": y},
            "the cross-entropy of logits and targets is",
        ),
    ],
)
def test_true_says_what_to_pass_where_it_would_have_to_guess(told, message):
    training = Training()
    watch = grokwatch.watch(training.model, training.optimizer, budget=500, curvature=True)
    with watch, pytest.warns(RuntimeWarning, match=f"curvature failed.*{message}.*pass") as all_:
        for _ in range(5):
            loss, logits = training.step()
            watch.train(**told(loss, logits, training.y))
    assert len(all_) == 1 and watch.verdict.step == 5
    assert not training.model._forward_hooks


def test_wrong_arguments_raise_at_once_and_leave_nothing():
    training = Training()
    model, optimizer = training.model, training.optimizer
    with pytest.raises(TypeError, match="curvature must be True, False or a CurvatureProbe"):
        grokwatch.watch(model, optimizer, budget=9, curvature=0.05)
    with pytest.raises(ValueError, match="curvature needs the optimizer"):
        grokwatch.watch(model, budget=9, curvature=True)
    with pytest.raises(ValueError, match="has a loss_fn but no batch"):
        grokwatch.watch(model, optimizer, budget=9, curvature=CurvatureProbe(lambda m, b: 0))
    for callback in (lightning.GrokWatchCallback, huggingface.GrokWatchCallback):
        with pytest.raises(TypeError, match="curvature must be True"):
            callback(curvature="yes")
    assert not optimizer._optimizer_step_pre_hooks and not model._forward_hooks


def broken(model, batch):
    raise ArithmeticError("the user's own")


def test_a_probe_that_raises_is_told_once_and_switched_off(tmp_path):
    x, y = Batches(1)[0]
    with pytest.warns(RuntimeWarning, match="curvature failed.*the user's own") as all_:
        watch, model, _, after = loop(tmp_path / "on", curvature=Often(broken, batch=(x, y)))
    assert len(all_) == 1
    _, plain, _, then = loop(tmp_path / "off", probed=False)
    same(model, plain)
    assert after == then and watch.verdict.step == 40 and not columns(watch.log_dir)


def test_a_spike_asks_for_a_probe():
    class Rare(CurvatureProbe):
        """Measures only when asked."""

        asked: list[int]

        def due(self, now=None):
            return self._requested

        def request(self):
            super().request()
            self.asked.append(len(losses))

    training, losses = Training(), []
    probe = Rare(batch=(training.x, training.y))
    probe.asked = []
    with grokwatch.watch(training.model, training.optimizer, budget=999, curvature=probe) as watch:
        for step in range(400):
            losses.append(1.0 if step == 200 else 1e-3)
            training.step()
            watch.train(loss=losses[-1], accuracy=1.0)
            if step % 10 == 0:
                watch.flush()
    assert watch.verdict.signals["spikes"] == 1
    assert len(probe.asked) == 1 and 200 <= probe.asked[0] <= 212
    assert "hessian_max" in watch.verdict.signals


def test_nothing_happens_on_other_ranks(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    training, calls = Training(), []
    probe = Often(lambda model, batch: calls.append(batch), batch=(training.x, training.y))
    with grokwatch.watch(training.model, training.optimizer, budget=500, curvature=probe) as watch:
        training.run(watch, 10)
    with grokwatch.watch(training.model, training.optimizer, budget=500, curvature=True) as watch:
        training.run(watch, 20)
    assert not calls and watch._prober.probe.batch is None


def test_split_weights_are_told_and_left_alone():
    training = Training()
    training.model.register_parameter("part", nn.Parameter(torch.zeros(2)))
    training.model.part.placements = ()  # what a tensor that is split over ranks has
    probe = Often(broken, batch=(training.x, training.y))
    settings = {"budget": 500, "norms_every": 0, "curvature": probe}
    with grokwatch.watch(training.model, training.optimizer, **settings) as watch:
        with pytest.warns(RuntimeWarning, match="curvature failed.*split over several processes"):
            training.run(watch, 5)
    assert watch.verdict.step == 5


def test_a_resumed_run_goes_on_probing_in_the_same_record(tmp_path):
    training = Training()
    data = training.x, training.y
    settings = {"budget": 500, "log_dir": tmp_path}
    watch = grokwatch.watch(
        training.model, training.optimizer, **settings, curvature=Often(batch=data)
    )
    training.run(watch, 20)
    state, twin = watch.state_dict(), training.copy()
    watch.close()
    watch = grokwatch.watch(twin.model, twin.optimizer, **settings, curvature=Often(batch=data))
    watch.load_state_dict(state)
    twin.run(watch, 40)
    watch.close()
    assert columns(tmp_path)["hessian_max"][0].tolist() == list(range(1, 41))
    assert replay(tmp_path / "grokwatch.jsonl").final == watch.verdict


# -- Lightning -----------------------------------------------------------------------------------


def lightning_net(package, **more):
    """A module with everything that a second training_step could disturb."""

    class Module(NETS[package]):
        def __init__(self) -> None:
            super().__init__(logs=("step", "epoch"), **more)
            self.net = Net()
            self.seen = torchmetrics.MeanMetric()
            self.calls, self.kept = 0, []

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.calls += 1
            self.kept.append(loss.detach())
            self.seen.update(loss)
            self.log("mean loss", self.seen, on_epoch=True, on_step=False)
            return loss

    return Module()


def lightning_fit(folder, package, curvature, **more):
    net = lightning_net(package)
    callback = lightning.GrokWatchCallback(curvature=curvature, log_dir=folder)
    (spies, fit) = spy_on(callback), trainer(folder, [callback], package, max_steps=30, **more)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    fit.fit(net, *loaders(10, parts=2))
    return callback, net, fit, spies, random_numbers()


@pytest.mark.parametrize("package", PACKAGES)
def test_lightning(tmp_path, package):
    on = lightning_fit(tmp_path / "on", package, Often())
    off = lightning_fit(tmp_path / "off", package, False)
    same(on[1], off[1])
    assert on[4] == off[4]
    assert on[1].calls == off[1].calls == 30 and len(on[1].kept) == len(on[1].losses) == 30
    logged = [{k: float(v) for k, v in run[2].callback_metrics.items()} for run in (on, off)]
    assert logged[0] == logged[1] and "mean loss" in logged[0]
    found = columns(on[0].log_dir)
    assert found["hessian_max"][0].tolist() == list(range(1, 31))
    run = read_run(on[0].log_dir / "grokwatch.jsonl")
    assert run.notes["curvature"] == {"batch": "first training batch", "mode": "eval"}
    assert {v.step: v for v in replay(run).verdicts} == on[3][0].verdicts
    kept, probe = Batches(1, 2)[0], on[0]._follower.curvature.probe
    assert all(torch.equal(a, b) for a, b in zip(probe.batch, kept, strict=True))


def test_the_loss_of_training_step_is_the_modules_own(tmp_path):
    net = lightning_net("lightning")
    trainer(tmp_path, [], max_steps=1).fit(net, *loaders(1))
    before = net.calls, len(net.kept), len(net.losses), net.seen.update_count
    net.eval()
    x, y = Batches(1)[0]
    loss = training_loss(net, (x, y))
    assert torch.equal(loss, cross_entropy(net.net(x), y)) and loss.requires_grad
    assert (net.calls, len(net.kept), len(net.losses), net.seen.update_count) == before


def test_lightning_true_and_what_it_cannot_do(tmp_path, often):
    net = NETS["lightning"]()
    net.automatic_optimization = False
    net.training_step = lambda batch, batch_idx: net.optimizers().step()
    callback = lightning.GrokWatchCallback(curvature=True, budget=10)
    fit = trainer(tmp_path, [callback], max_steps=4)
    with pytest.warns(RuntimeWarning, match="curvature failed.*steps of its own; pass curvature="):
        fit.fit(net, *loaders(4))
    callback = lightning.GrokWatchCallback(curvature=True, log_dir=tmp_path / "b")
    trainer(tmp_path, [callback], max_steps=20).fit(NETS["lightning"](), *loaders())
    assert columns(callback.log_dir)["hessian_max"][1][0] > 0


# -- Hugging Face --------------------------------------------------------------------------------


class HFNet(Net):
    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None):
        logits = super().forward(x)
        loss = {} if labels is None else {"loss": cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def hf_train(folder, curvature, **changes):
    callback = huggingface.GrokWatchCallback(curvature=curvature)
    watched = Watched(callback)
    fit = make(folder, callback, watched, model=HFNet(), **{"max_steps": 30, **changes})
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    fit.train()
    return callback, fit, watched.spy, random_numbers()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_huggingface(tmp_path, accumulate):
    more = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": 32}
    on = hf_train(tmp_path / "on", Often(), **more)
    off = hf_train(tmp_path / "off", False, **more)
    same(on[1].model, off[1].model)
    assert on[3] == off[3]
    losses = [[row["loss"] for row in r[1].state.log_history if "loss" in row] for r in (on, off)]
    assert losses[0] == losses[1]
    found = columns(on[0].log_dir)
    assert found["hessian_max"][0].tolist() == list(range(1, 31))
    run = read_run(on[0].log_dir / "grokwatch.jsonl")
    assert run.notes["curvature"] == {"batch": "first training batch", "mode": "eval"}
    assert {v.step: v for v in replay(run).verdicts} == on[2].verdicts
    assert set(on[0]._follower.curvature.probe.batch) == {"x", "labels"}
    assert not on[1].model._forward_hooks


def test_huggingface_losses_are_not_taken_from_a_probe_in_training_mode(tmp_path):
    on = hf_train(tmp_path / "on", Often(mode="train"))
    off = hf_train(tmp_path / "off", False)
    taken = [read_run(r[0].log_dir / "grokwatch.jsonl").columns["train_loss"] for r in (on, off)]
    assert np.array_equal(taken[0][1], taken[1][1])


def test_huggingface_language_model_and_what_true_cannot_do(tmp_path, often):
    callback = huggingface.GrokWatchCallback(curvature=True)
    make(tmp_path / "a", callback, lm=True, max_steps=15).train()
    found = columns(callback.log_dir)
    assert found["hessian_max"][1][0] > 0
    callback = huggingface.GrokWatchCallback(curvature=True)
    with pytest.warns(RuntimeWarning, match="curvature failed.*returns no loss; pass curvature="):
        make(tmp_path / "b", callback, lm=True, max_steps=5, label_smoothing_factor=0.1).train()
