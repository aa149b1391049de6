"""Training curves in TensorBoard are thinned each by itself, so that none ends early."""

from __future__ import annotations

from itertools import pairwise

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grokwatch.integrations.tensorboard import TensorBoardSink


def test_an_accuracy_that_comes_rarely_is_not_lost_between_the_losses(tmp_path):
    sink = TensorBoardSink(tmp_path, {})
    for step in range(1, 3001):
        sink.observe(step, {"train_loss": 1.0})
        if step % 50 == 3:
            sink.observe(step, {"train_accuracy": 0.5})
    sink.close()
    found = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    losses, accuracies = (
        [event.step for event in found.Scalars(f"grokwatch/train_{kind}")]
        for kind in ("loss", "accuracy")
    )
    assert len(losses) < 300 and losses[-1] > 2900
    assert accuracies[0] == 3 and accuracies[-1] > 2850
    assert all(b - a <= a // 40 + 50 for a, b in pairwise(accuracies))
