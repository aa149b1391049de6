"""The runs that ``step_overhead`` compares: the same training, watched by one thing or another."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import grokwatch

CLASSES, BATCH, VALIDATE_EVERY = 10, 32, 100


class Work:
    """A network's step, and so many products of matrices besides.

    Args:
        filler: how many.
    """

    def __init__(self, filler: int) -> None:
        torch.manual_seed(0)
        self.filler = filler
        self.done: Callable[[], object] = lambda: None  # called at every step
        self.matrix = torch.randn(32, 32) / 6
        self.x, self.y = torch.randn(BATCH, 8), torch.randint(CLASSES, (BATCH,))
        self.fresh()

    def fresh(self) -> None:
        """Make network and optimizer anew."""
        self.model = torch.nn.Linear(8, CLASSES)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def fill(self) -> None:
        """Do what a larger network would."""
        self.done()
        matrix = self.matrix
        for _ in range(self.filler):
            matrix = self.matrix @ matrix

    def validation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and accuracy on as many examples as two batches, as any run computes them."""
        with torch.no_grad():
            logits = self.model(torch.cat([self.x, self.x]))
            self.fill()
            y = torch.cat([self.y, self.y])
            return cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and logits; the gradients are left for whoever wants them."""
        logits = self.model(self.x)
        loss = cross_entropy(logits, self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.fill()
        return loss, logits

    def run(self, count: int, after: Callable[..., object] | None = None) -> None:
        """Train; ``after(step, loss, logits)`` comes between backward and the optimiser."""
        for step in range(count):
            loss, logits = self.step()
            if after is not None:
                after(step, loss, logits)
            self.optimizer.step()
            if step % VALIDATE_EVERY == 0:
                self.validation()


Run = Callable[[Work, int, Path], object]


# -- a loop of one's own ----------------------------------------------------------------------


def bare(work: Work, count: int, folder: Path) -> None:
    work.fresh()
    work.run(count)


def watched(
    work: Work, count: int, folder: Path, logits_too: bool = False, **settings: Any
) -> None:
    work.fresh()
    with grokwatch.watch(work.model, work.optimizer, budget=count, **settings) as watch:
        for step in range(count):
            loss, logits = work.step()
            work.optimizer.step()
            if logits_too:
                watch.train(loss=loss, logits=logits, targets=work.y)
            else:
                watch.train(loss=loss)
            if step % VALIDATE_EVERY == 0:
                loss, accuracy = work.validation()
                watch.validate(loss=loss, accuracy=accuracy)


def read(work: Work, count: int, folder: Path) -> None:
    work.fresh()
    kept: list[float] = []
    work.run(count, lambda step, loss, _: kept.append(loss.item()))


def copied(work: Work, count: int, folder: Path) -> None:
    work.fresh()
    kept: list[torch.Tensor] = []

    def after(step: int, loss: torch.Tensor, logits: torch.Tensor) -> None:
        kept.append(loss.detach().clone())
        if len(kept) == 50:
            torch.stack(kept).tolist()
            kept.clear()

    work.run(count, after)


def tensorboard(work: Work, count: int, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    work.fresh()
    with SummaryWriter(str(folder)) as writer:
        work.run(count, lambda step, loss, _: writer.add_scalar("loss", loss.item(), step))


def torchmetrics(work: Work, count: int, folder: Path) -> None:
    from torchmetrics.classification import MulticlassAccuracy

    work.fresh()
    metric = MulticlassAccuracy(CLASSES, average="micro")

    def after(step: int, loss: torch.Tensor, logits: torch.Tensor) -> None:
        metric.update(logits, work.y)
        if step % VALIDATE_EVERY == 0:
            metric.compute()
            metric.reset()

    work.run(count, after)


def trainpulse(work: Work, count: int, folder: Path) -> None:
    from trainpulse import TrainingCallback

    work.fresh()
    callback = TrainingCallback()
    for step in range(count):
        callback.on_step_begin(step)
        loss, _ = work.step()
        work.optimizer.step()
        callback.on_step_end(step, loss=loss.item())
        if step % VALIDATE_EVERY == 0:
            work.validation()
    callback.report()


def trainscope(work: Work, count: int, folder: Path) -> None:
    from trainscope import TrainScope
    from trainscope.core.config import TrainScopeConfig

    work.fresh()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        config = TrainScopeConfig(run_dir=str(folder))
        scope = TrainScope(work.model, work.optimizer, config=config).attach()
        work.run(count, lambda step, loss, _: scope.step(loss.item(), batch_index=step))
        scope.detach()


RAW: dict[str, Run] = {
    "bare": bare,
    "bare, again": bare,
    "floor: the loss read into a list": read,
    "floor: copied, 50 fetched at once": copied,
    "grokwatch without norms": lambda *run: watched(*run, norms_every=0),
    "grokwatch": watched,
    "grokwatch, accuracy from logits": lambda *run: watched(*run, logits_too=True),
    "grokwatch, record": lambda *run: watched(*run, log_dir=run[2], tensorboard=False),
    "grokwatch, record and TensorBoard": lambda *run: watched(*run, log_dir=run[2]),
    "TensorBoard add_scalar": tensorboard,
    "torchmetrics accuracy": torchmetrics,
    "trainpulse": trainpulse,
    "trainscope": trainscope,
}


# -- Lightning --------------------------------------------------------------------------------


def lightning(callbacks: str, logger: str) -> Run:
    """A Trainer with the callback and the logger of these names."""

    def run(work: Work, count: int, folder: Path) -> None:
        import lightning.pytorch as pl
        from lightning.pytorch.callbacks import EarlyStopping

        from grokwatch.integrations.lightning import GrokWatchCallback

        work.fresh()

        class Module(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = work.model

            def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
                x, y = batch
                logits = self.model(x)
                loss = cross_entropy(logits, y)
                work.fill()
                if logger:
                    self.log("train_loss", loss)
                return loss

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                self.log("val_loss", cross_entropy(self.model(batch[0]), batch[1]))
                self.log("val_acc", torch.tensor(0.1))

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=1e-3)

        made: list[Any] = []
        if callbacks == "grokwatch":
            made = [GrokWatchCallback(budget=count, log_dir=folder)]
        elif callbacks:
            made = [EarlyStopping("val_loss", patience=10**6)]
        loggers = {"csv": pl.loggers.CSVLogger, "tensorboard": pl.loggers.TensorBoardLogger}
        kept = loggers[logger](folder) if logger else False
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=count, max_epochs=-1, callbacks=made, logger=kept,
            val_check_interval=VALIDATE_EVERY, check_val_every_n_epoch=None,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        batch = (work.x, work.y)
        loaders = [DataLoader([batch] * n, batch_size=None) for n in (count, 1)]
        trainer.fit(Module(), *loaders)

    return run


# -- Hugging Face -----------------------------------------------------------------------------


class Model(torch.nn.Module):
    """What a Trainer wants: a loss in a mapping."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.inner, self.work = work.model, [work]

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss and logits."""
        logits = self.inner(x)
        if self.training:
            self.work[0].fill()
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def huggingface(callback: bool, report_to: str) -> Run:
    """A Trainer with the callback, or reporting to a tool."""

    def run(work: Work, count: int, folder: Path) -> None:
        from transformers import Trainer, TrainingArguments

        from grokwatch.integrations.huggingface import GrokWatchCallback

        work.fresh()
        examples = [{"x": work.x[0], "labels": work.y[0]}] * BATCH * count
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=count, per_device_train_batch_size=BATCH,
            eval_strategy="steps", eval_steps=VALIDATE_EVERY, logging_steps=VALIDATE_EVERY,
            save_strategy="no", report_to=report_to, disable_tqdm=True, use_cpu=True,
            label_names=["labels"], optim="sgd", lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = Trainer(
            model=Model(work), args=arguments,
            train_dataset=examples, eval_dataset=examples[:BATCH],
            callbacks=[GrokWatchCallback(log_dir=folder)] if callback else [],
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()

    return run


FRAMEWORKS: dict[str, dict[str, Run]] = {
    "raw": RAW,
    "lightning": {
        "bare": lightning("", ""),
        "bare, again": lightning("", ""),
        "grokwatch": lightning("grokwatch", ""),
        "EarlyStopping and CSVLogger": lightning("early stopping", "csv"),
        "TensorBoardLogger": lightning("", "tensorboard"),
        "grokwatch and TensorBoardLogger": lightning("grokwatch", "tensorboard"),
    },
    "huggingface": {
        "bare": huggingface(False, "none"),
        "bare, again": huggingface(False, "none"),
        "grokwatch": huggingface(True, "none"),
        "TensorBoard": huggingface(False, "tensorboard"),
        "grokwatch and TensorBoard": huggingface(True, "tensorboard"),
    },
}
#: What must be installed for a contender.
PEERS = {
    "trainscope": "trainscope",
    "trainpulse": "trainpulse",
    "torchmetrics accuracy": "torchmetrics",
}
