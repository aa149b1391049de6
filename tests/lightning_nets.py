"""Lightning modules and trainers for tests; also run as a script, in processes of their own.

python -m tests.lightning_nets FOLDER [--kill-after STEP] [--resume CKPT] [--devices N] ...
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from grokwatch.integrations.lightning import GrokWatchCallback
from tests.nets import P, Spy, data
from tests.process_group import leave

PACKAGES = {"lightning": pl, "pytorch_lightning": pytorch_lightning}
# What Lightning or torch warn of, whatever a callback does.
QUIET = (
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated",
    "ignore:The number of training batches",
    "ignore:.*litlogger",
    "ignore:.*tensorboardX",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:Experiment logs directory .* exists and is not empty",
    "ignore:GPU available but not used",
    "ignore:.*is automatically set by the torch.distributed",
)


def accuracy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(1) == y).float().mean()


class Common:
    """A quadratic network on addition modulo P; what it logs is in its arguments."""

    def __init__(self, returns: bool = False, logs: tuple[str, ...] = (), **val: str) -> None:
        super().__init__()
        from models import MLP

        torch.manual_seed(0)
        network = MLP(n_tokens=P, width=64, n_classes=P, activation="quadratic")
        self.net = torch.nn.Sequential(network, torch.nn.Dropout(0.0))
        self.returns, self.log_as = returns, logs
        self.val = val or {"loss": "val_loss", "accuracy": "val_acc"}
        self.poison_at: int | None = None
        self.losses: list[tuple[int, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        if self.poison_at is not None and self.trainer.global_step >= self.poison_at:
            with torch.no_grad():
                self.net[0].head.weight.fill_(float("nan"))
        logits = self.net(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        self.losses.append((self.trainer.global_step, loss.detach()))
        if "step" in self.log_as:
            self.log("train_acc", accuracy(logits, y))
        if "epoch" in self.log_as:
            self.log("train/acc", accuracy(logits, y), on_step=False, on_epoch=True)
        return {"loss": loss, "accuracy": accuracy(logits, y)} if self.returns else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        if "loss" in self.val:
            self.log(self.val["loss"], torch.nn.functional.cross_entropy(logits, y))
        if "accuracy" in self.val:
            self.log(self.val["accuracy"], accuracy(logits, y), prog_bar="bar" in self.log_as)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98))


class Net(Common, pl.LightningModule):
    pass


class OtherNet(Common, pytorch_lightning.LightningModule):
    pass


NETS = {"lightning": Net, "pytorch_lightning": OtherNet}


class Batches(torch.utils.data.Dataset):
    """The same full batch again and again, or parts of it in turn."""

    def __init__(self, count: int, parts: int = 1, val: bool = False) -> None:
        x, y, x_val, y_val = data()
        self.x, self.y = (x_val, y_val) if val else (x, y)
        self.count, self.parts = count, parts

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = index % self.parts
        return self.x[part :: self.parts], self.y[part :: self.parts]


def loaders(count: int = 20, parts: int = 1) -> tuple[DataLoader, DataLoader]:
    train = DataLoader(Batches(count, parts), batch_size=None)
    return train, DataLoader(Batches(1, val=True), batch_size=None)


def trainer(folder: Path, callbacks: Any, package: str = "lightning", **more: Any) -> Any:
    quiet = {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "default_root_dir": folder,
    }
    return PACKAGES[package].Trainer(callbacks=callbacks, **{**quiet, **more})


def spy_on(callback: GrokWatchCallback) -> list[Spy]:
    """Spies on every monitor that the callback makes."""
    spies: list[Spy] = []
    start = callback._follower.start

    def listen(*args: Any, **kwargs: Any) -> None:
        start(*args, **kwargs)
        if callback._follower._outlet is not None:
            spies.append(Spy(callback._follower))

    callback._follower.start = listen  # type: ignore[method-assign]
    return spies


class KillAfter(pl.Callback):
    """Ends the process as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Report(pl.Callback):
    """Writes where each rank ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        path = self.folder / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps({"step": trainer.global_step}))


class Uneven(pl.LightningDataModule):
    """The second rank's data ends early."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> DataLoader:
        count = self.count if self.trainer.global_rank == 0 else self.count // 2
        return DataLoader(Batches(count), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return loaders()[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-after", type=int)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--poison-at", type=int)
    parser.add_argument("--uneven", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    callback = GrokWatchCallback(stop=args.devices > 1, budget=300)
    callbacks: list[Any] = [callback, Report(args.folder)]
    if args.kill_after is not None:
        callbacks.append(KillAfter(args.kill_after))
    callbacks.append(
        pl.callbacks.ModelCheckpoint(args.folder, "{step}", every_n_train_steps=70, save_top_k=-1)
    )
    spies = spy_on(callback)
    fit = trainer(
        args.folder,
        callbacks,
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        max_steps=args.steps,
        enable_checkpointing=True,
        logger=pl.loggers.TensorBoardLogger(args.folder),
    )
    net = Net(returns=True)
    net.poison_at = args.poison_at
    train, val = loaders(50)
    if args.uneven:
        fit.fit(net, datamodule=Uneven(20), ckpt_path=args.resume)
    else:
        fit.fit(net, train, val, ckpt_path=args.resume)
    if fit.is_global_zero:
        verdicts = [verdict.as_dict() for verdict in spies[0].verdicts.values()]
        (args.folder / "verdicts.json").write_text(json.dumps(verdicts))


if __name__ == "__main__":
    main()
    leave()
