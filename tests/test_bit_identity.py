"""With every feature on, a training ends with the bits it would have ended with unwatched."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch

from grokwatch.records import read_run
from tests.identity import STEPS, in_huggingface, in_lightning, raw
from tests.lightning_nets import QUIET

LOOPS = {"raw": raw, "lightning": in_lightning, "huggingface": in_huggingface}
CASES = ["plain", "amp", "accumulation", "compile", "workers"]
#: GradScaler needs no GPU in a loop of one's own only; the HF Trainer has one optimizer.
ALSO = {"raw": ["optimizers", "scaler"], "lightning": ["optimizers"], "huggingface": []}


@pytest.mark.parametrize("harm", [lambda: torch.rand(1), random.random, np.random.rand])
def test_what_draws_one_random_number_is_caught(harm, tmp_path):
    assert raw(tmp_path, False, "plain")[0] != raw(tmp_path, False, "plain", harm)[0]


@pytest.mark.parametrize(
    ("framework", "what"),
    [(name, case) for name in LOOPS for case in CASES + ALSO[name]],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_the_trained_bits_are_those_of_an_unwatched_run(framework, what, tmp_path):
    with warnings.catch_warnings():
        for text in QUIET:
            warnings.filterwarnings("ignore", text.removeprefix("ignore:"))
        torch._dynamo.reset()
        plain, _ = LOOPS[framework](tmp_path / "plain", False, what)
        torch._dynamo.reset()
        watched, folder = LOOPS[framework](tmp_path / "watched", True, what)
    different = [name for name in plain if plain[name] != watched[name]]
    assert not different and plain.keys() == watched.keys()
    run = read_run(folder)
    for column in ("train_loss", "val_accuracy", "weight_norm", "hessian_max"):
        assert column in run.columns, "the feature was not on"
    assert len(run.columns["hessian_max"][0]) == STEPS
    assert list(folder.glob("events*"))
