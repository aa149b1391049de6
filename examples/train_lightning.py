"""Train a two-layer transformer on modular arithmetic with Lightning, watched by one callback.

    python examples/train_lightning.py                                # groks in a few minutes
    python examples/train_lightning.py --preset paper --operator +    # hours on a CPU
    tensorboard --logdir runs/lightning

The set-up is that of train_pytorch.py. The callback finds loss and accuracy by the names under
which the module logs them, and stops the run; `--resume` goes on from the checkpoint it leaves.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Literal, NamedTuple

import lightning.pytorch as pl
import torch
from models import Transformer
from tasks import equations, split
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from grokwatch.integrations.lightning import GrokWatchCallback


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    width: int
    norm: Literal["pre", "post"]
    train_fraction: float
    lr: float
    budget: int


PRESETS = {
    "small": Preset(31, 32, "pre", 0.6, 2e-3, 20_000),
    "paper": Preset(97, 128, "post", 0.5, 1e-3, 50_000),
}
OPERATORS = {"+": "plus", "-": "minus", "*": "times", "/": "over", "x^2+y^2": "squares"}
LARGEST_BATCH = 512
VALIDATE_EVERY = 20  # steps


class Arithmetic(pl.LightningModule):
    """A transformer that answers a∘b; nothing in it knows of grokwatch."""

    def __init__(self, num_classes: int, width: int, norm: Literal["pre", "post"], lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.model = Transformer(num_classes, num_classes, width=width, norm=norm)

    def _loss(self, batch: tuple[torch.Tensor, torch.Tensor], side: str) -> torch.Tensor:
        x, y = batch
        logits = self.model(x)
        loss = cross_entropy(logits, y)
        self.log(f"{side}_loss", loss)
        self.log(f"{side}_accuracy", (logits.argmax(1) == y).float().mean(), prog_bar=side == "val")
        return loss

    def training_step(self, batch, batch_idx):  # noqa: D102
        return self._loss(batch, "train")

    def validation_step(self, batch, batch_idx):  # noqa: D102
        self._loss(batch, "val")

    def configure_optimizers(self):  # noqa: D102
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.hparams.lr, betas=(0.9, 0.98), weight_decay=1.0
        )
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 10, total_iters=9)
        return [optimizer], [{"scheduler": warm_up, "interval": "step"}]


def main() -> int:
    """Train one network; the exit status is 0 if it generalised."""
    parser = argparse.ArgumentParser(description="Train a transformer with Lightning, watched.")
    parser.add_argument("--operator", choices=OPERATORS, default="/")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the weights")
    parser.add_argument("--no-stop", action="store_true", help="go on until the budget is spent")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    # The data are in memory, and validation falls on steps: neither calls for advice.
    warnings.filterwarnings("ignore", "The ('.*_dataloader' does not have|number of training)")
    pl.seed_everything(args.seed)
    pairs, answers, n_classes = equations(args.operator, preset.p)
    table = TensorDataset(torch.from_numpy(pairs), torch.from_numpy(answers))
    fraction = preset.train_fraction
    train, val = (TensorDataset(*table[i]) for i in split(len(table), fraction, args.seed))
    batch = min(LARGEST_BATCH, len(train) // 2)
    batches = BatchSampler(RandomSampler(train), batch, drop_last=True)

    callback = GrokWatchCallback(stop=not args.no_stop, train_fraction=fraction)
    trainer = pl.Trainer(
        max_steps=preset.budget,
        check_val_every_n_epoch=None,
        val_check_interval=VALIDATE_EVERY,
        callbacks=[callback],
        logger=pl.loggers.TensorBoardLogger("runs/lightning", OPERATORS[args.operator]),
    )
    trainer.fit(
        Arithmetic(n_classes, preset.width, preset.norm, preset.lr),
        DataLoader(train, sampler=batches, batch_size=None),
        DataLoader(val, sampler=BatchSampler(range(len(val)), len(val), False), batch_size=None),
        ckpt_path=args.resume,
    )
    verdict = callback.verdict
    print(f"step {verdict.step:,}: {verdict.recommendation}. {verdict.reason}")
    t2, t4 = verdict.signals.get("t2"), verdict.signals.get("t4")
    print(f"memorised at step {t2}, generalised at {t4}; grokwatch replay {callback.log_dir}")
    return int(verdict.phase != "generalised")


if __name__ == "__main__":
    raise SystemExit(main())
