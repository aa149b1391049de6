from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokwatch.geometry._pace import Pace
from grokwatch.geometry.curvature import hessian_extremes
from grokwatch.geometry.probe import CurvatureProbe
from tests.nets import Training


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(
    seconds: float, step: float, product: float, budget: float = 0.05, request_every: int = 0
) -> tuple[float, float, list[float]]:
    """Training and probing time of a run on such a machine, and when it was probed."""
    pace, now, spent, at, k = Pace(budget), 0.0, 0.0, [], 0
    while now < seconds:
        now += step
        k += 1
        wanted = bool(request_every) and k % request_every == 0
        if pace.due(now, 8, wanted):
            pace.spent(now, now + 8 * product, 8)
            now += 8 * product
            spent += 8 * product
            at.append(now)
    return now - spent, spent, at


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("step", [2e-4, 1e-2, 0.2, 3.0])
@pytest.mark.parametrize("ratio", [0.3, 2.0, 20.0])
def test_the_share_of_the_budget_is_kept(budget, step, ratio):
    seconds = max(3000 * step, 50 * 8 * ratio * step / budget)
    training, spent, at = drive(seconds, step, ratio * step, budget)
    # All but the first, which may be paid for afterwards.
    assert spent <= budget * training + 8 * ratio * step
    assert spent >= 0.8 * budget * training - 8 * ratio * step - budget * step * len(at)
    assert len(at) > 5


def test_a_short_first_probe_comes_at_once_and_a_long_one_is_saved_up_for():
    assert drive(10, 1e-3, 2e-3)[2][0] < 0.1
    assert drive(2000, 1.0, 2.0)[2][0] > 2 * 8 / 0.05 * 0.9


def test_a_pause_is_not_followed_by_a_burst():
    pace = Pace(0.1)
    pace.spent(0.0, 1.0, 8)
    assert pace.due(1e6, 8)  # after eleven days
    pace.spent(1e6, 1e6 + 1, 8)
    assert not pace.due(1e6 + 2, 8)
    assert not pace.due(1e6 + 10, 8) and pace.due(1e6 + 12.2, 8)


def test_a_request_is_served_ahead_of_its_time_but_paid_for():
    pace, at, now = Pace(0.1), [], 0.0
    pace.spent(0.0, 1.0, 8)
    while len(at) < 40:  # 400 seconds: a twentieth of what they paid is two probes
        now += 1.0
        if pace.due(now, 8):
            pace.spent(now, now + 1.0, 8)
            now += 1.0
            at.append(now)
    assert not pace.due(now + 1.0, 8)
    assert pace.due(now + 1.0, 8, requested=True)
    pace.spent(now + 1.0, now + 2.0, 8)
    assert not pace.due(now + 4.0, 8, requested=True)  # one on credit, not two
    assert not pace.due(now + 20.0, 8) and pace.due(now + 24.0, 8)


def test_early_in_a_run_there_is_little_to_borrow():
    pace = Pace(0.1)
    pace.spent(0.0, 1.0, 8)
    assert not pace.due(1.5, 8, requested=True) and not pace.due(19.0, 8, requested=True)
    assert not pace.due(22.5, 8) and pace.due(22.5, 8, requested=True)


@pytest.mark.parametrize("step", [1e-3, 2e-2, 0.2])
@pytest.mark.parametrize("request_every", [1, 10, 100])
def test_requests_cannot_exceed_the_budget_by_more_than_a_twentieth(step, request_every):
    training, spent, at = drive(60, step, 2 * step, request_every=request_every)
    assert spent <= 1.05 * 0.05 * training + 1e-9
    assert len(at) > 1 or step > 0.1


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1, 5])
def test_a_budget_is_a_share(budget):
    with pytest.raises(ValueError, match="budget must be a share between 0 and 1"):
        CurvatureProbe(budget=budget)


def linear_problem() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return nn.Linear(6, 3), (torch.randn(20, 6), torch.randint(3, (20,)))


def test_it_measures_what_hessian_extremes_measures():
    model, batch = linear_problem()
    probe = CurvatureProbe(batch=batch, name="first batch").attach(model)
    cold, warm = probe.measure(), probe.measure()

    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    direct = hessian_extremes(loss, model, n_hvp=16, model=model)
    assert (cold.lambda_max, cold.lambda_min) == (direct.lambda_max, direct.lambda_min)
    direct = hessian_extremes(loss, model, n_hvp=8, state=direct.state, model=model)
    assert (warm.lambda_max, warm.lambda_min) == (direct.lambda_max, direct.lambda_min)
    assert cold.batch == "first batch" and not cold.warm and warm.warm
    assert (cold.n_hvp, warm.n_hvp, cold.mode) == (16, 8, "eval")


def test_every_so_many_probes_one_is_cold_and_so_is_a_requested_one():
    model, batch = linear_problem()
    probe = CurvatureProbe(batch=batch, refresh=4).attach(model)
    assert [probe.measure().warm for _ in range(9)] == [False, True, True, True] * 2 + [False]
    assert probe.measure().warm
    probe.request()
    assert [probe.measure().warm for _ in range(2)] == [False, True]


def test_due_needs_a_model_a_batch_and_time():
    clock = Clock()
    model, batch = linear_problem()
    probe = CurvatureProbe(clock=clock)
    assert not probe.due()
    with pytest.raises(RuntimeError, match="no model: call attach"):
        probe.measure()
    probe.attach(model)
    assert not probe.due()
    with pytest.raises(RuntimeError, match=r"no batch: set probe\.batch"):
        probe.measure()
    probe.batch = batch
    assert not probe.due()  # nothing is known of the time a step takes
    clock.now = 0.001
    assert probe.due() and probe.due(0.002)
    probe.measure()
    assert probe.due(0.003)  # on this clock a probe takes no time


def test_the_batch_stays_what_it_was():
    model, (x, y) = linear_problem()
    probe = CurvatureProbe(batch=(x, y)).attach(model)
    before = probe.measure().lambda_max
    x.zero_()
    probe._state = None
    assert probe.measure().lambda_max == before
    assert probe.batch[0].any()


def test_other_batches_and_losses():
    model, (x, _) = linear_problem()
    probe = CurvatureProbe(batch=[x, torch.randn(20, 3)]).attach(model)
    assert probe.measure().lambda_min >= -1e-6  # least squares in a linear network is convex
    probe = CurvatureProbe(lambda m, b: (m(b["x"]) ** 2).sum(), batch={"x": x}, mode="keep").attach(
        model
    )
    assert probe.measure().mode == "train"

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, inputs: Tensor, labels: Tensor) -> object:
            output = type("Output", (), {})()
            output.loss = cross_entropy(self.inner(inputs), labels)
            return output

    mapping = {"inputs": x, "labels": torch.zeros(20, dtype=torch.long)}
    assert CurvatureProbe(batch=mapping).attach(Scored()).measure().batch == "20 examples"
    with pytest.raises(TypeError, match=r"a pair \(inputs, targets\) or a mapping but is Tensor"):
        CurvatureProbe(batch=x).attach(model).measure()
    with pytest.raises(ValueError, match="do not fit"):
        CurvatureProbe(batch=(x, torch.randn(20))).attach(model).measure()


def test_wrappers_are_taken_off():
    model, batch = linear_problem()
    compiled = torch.compile(model, backend="eager")
    probe = CurvatureProbe(batch=batch).attach(compiled)
    assert probe.measure().lambda_max > 0


def test_a_failing_loss_is_the_callers_to_handle_and_its_time_is_booked():
    clock, (model, batch) = Clock(), linear_problem()

    def fails(model: nn.Module, batch: object) -> Tensor:
        clock.now += 100.0
        raise ZeroDivisionError("no loss")

    probe = CurvatureProbe(fails, batch=batch, clock=clock).attach(model)
    with pytest.raises(ZeroDivisionError):
        probe.measure()
    assert not probe.due(clock.now + 1000) and probe.due(clock.now + 4600)


def test_thawed_layers_start_anew():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    batch = linear_problem()[1]
    model[0].requires_grad_(False)
    probe = CurvatureProbe(batch=batch).attach(model)
    probe.measure()
    model[0].requires_grad_(True)
    found = probe.measure()
    assert not found.warm and found.n_hvp == 16


def test_measurements_are_finite_floats():
    training = Training()
    probe = CurvatureProbe(batch=(training.x, training.y), edge=True)
    probe.attach(training.model, training.optimizer)
    training.step()
    row = probe.measurements(probe.measure())
    assert set(row) == {
        "hessian_max", "hessian_min", "hessian_ratio", "hessian_max_residual",
        "hessian_min_residual", "hessian_max_resolved", "hessian_min_resolved",
        "hessian_edge", "hessian_edge_resolved",
    }  # fmt: skip
    assert all(type(value) is float and math.isfinite(value) for value in row.values())
    assert row["hessian_ratio"] == row["hessian_min"] / row["hessian_max"]
    with torch.no_grad():
        next(training.model.parameters()).fill_(math.nan)
    row = probe.measurements(probe.measure())
    assert row == {"hessian_max_resolved": 0.0, "hessian_min_resolved": 0.0}
    assert not probe.measure().warm


@pytest.mark.parametrize("edge", [False, True])
def test_training_with_a_probe_is_bit_identical(edge):
    def run(probing: bool) -> list[bytes]:
        training = Training(dropout=0.3)
        probe = CurvatureProbe(batch=(training.x, training.y), edge=edge)
        probe.attach(training.model, training.optimizer)
        for k in range(40):
            training.step()
            if probing and k % 5 == 0:
                assert probe.measure().lambda_max > 0
        return [p.detach().numpy().tobytes() for p in training.model.parameters()]

    assert run(True) == run(False)
