"""One network with everything in it that a monitor could disturb, trained in three frameworks."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

import grokwatch
from grokwatch.geometry.probe import CurvatureProbe
from grokwatch.integrations import huggingface, lightning
from grokwatch.signals.fourier import FourierConcentration

torch.set_num_threads(1)

TOKENS, WIDTH, BATCH, STEPS = 11, 8, 16, 12


class Network(nn.Module):
    """Dropout, BatchNorm, fused attention, tied, frozen and unused parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.unused = nn.Linear(3, 2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        q, k, v = self.qkv(self.embed(x)).unsqueeze(1).chunk(3, dim=-1)
        h = scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        h = self.norm(self.frozen(h.mean((1, 2))))
        logits = self.head(h + self.dropout(torch.tanh(self.hidden(h))))
        return (
            logits if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}
        )

    def groups(self, count: int) -> list[list[nn.Parameter]]:
        """The parameters to train, as one or two optimizers share them."""
        wanted = [p for p in self.parameters() if p.requires_grad]
        return [wanted] if count == 1 else [wanted[:3], wanted[3:]]


class Noisy(Dataset):
    """Pairs and their sums; some are swapped by the random numbers of whoever loads them."""

    def __init__(self, n: int) -> None:
        self.pairs = torch.cartesian_prod(torch.arange(TOKENS), torch.arange(TOKENS))[:n]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        swap = torch.rand(()) + random.random() + np.random.rand() > 1.5
        return pair.flip(0) if swap else pair, pair.sum() % TOKENS


class Often(CurvatureProbe):
    """Measures at every step; the clock may not decide what a test sees."""

    def due(self, now: float | None = None) -> bool:
        super().due(now)
        return self.batch is not None


def everything(folder: Path | None) -> dict[str, Any]:
    """Arguments that turn every feature of a watch on."""
    pairs = torch.cartesian_prod(torch.arange(TOKENS), torch.arange(TOKENS))[::3]
    probe = Often(batch={"x": pairs, "labels": pairs.sum(1) % TOKENS}, loss_fn=_loss, edge=True)
    return {
        "budget": 400,
        "log_dir": folder,
        "norms_every": 1,
        "curvature": probe,
        "on_verdict": lambda verdict: None,
        "signals": [FourierConcentration()],
    }


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    model = getattr(model, "net", model)
    return model(**batch)["loss"]


def seed() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def bits(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Everything a monitor could have changed."""
    found: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = tensor.detach().numpy().tobytes()
        grad = tensor.grad
        found[f"{name}.grad"] = None if grad is None else grad.numpy().tobytes()
        found[f"{name}.requires_grad"] = tensor.requires_grad
    for i, optimizer in enumerate(optimizers):
        for j, state in enumerate(optimizer.state.values()):
            for key, value in state.items():
                found[f"optimizer {i}, {j}, {key}"] = torch.as_tensor(value).numpy().tobytes()
    found["modes"] = [module.training for module in model.modules()]
    found["torch"] = torch.get_rng_state().numpy().tobytes()
    found["random"] = random.getstate()
    found["numpy"] = np.random.get_state()[1].tobytes()  # type: ignore[index]
    found["hooks"] = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return found


def loader(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(Noisy(96), batch_size=BATCH, shuffle=True, num_workers=workers)


# -- a loop of one's own ----------------------------------------------------------------------


def raw(
    folder: Path, watched: bool, what: str, meanwhile: Callable[[], object] = list
) -> tuple[dict[str, Any], Path | None]:
    seed()
    model = Network()
    running: Any = torch.compile(model, backend="aot_eager") if what == "compile" else model
    parts = model.groups(2 if what == "optimizers" else 1)
    optimizers = [torch.optim.AdamW(part, lr=1e-2) for part in parts]
    half = {"amp": torch.bfloat16, "scaler": torch.float16}.get(what)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=what == "scaler")
    micro = 3 if what == "accumulation" else 1
    watch = grokwatch.watch(running, optimizers, **everything(folder)) if watched else None
    step = taken = 0
    while taken < STEPS:
        for x, y in loader(2 if what == "workers" else 0):
            meanwhile()
            with torch.autocast("cpu", dtype=half, enabled=half is not None):
                logits = running(x)
                loss = cross_entropy(logits, y) / micro
            scaler.scale(loss).backward()
            step += 1
            if step % micro == 0:
                for optimizer in optimizers:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
                taken += 1
            if watch:
                watch.train(loss=loss * micro, logits=logits, targets=y)
            if step % micro == 0:
                if taken % 5 == 0:
                    model.eval()
                    with torch.no_grad():
                        seen = running(x)
                    model.train()
                    if watch:
                        watch.validate(logits=seen, targets=y)
                        watch.state_dict()
                if taken == STEPS:
                    break
                for optimizer in optimizers:
                    optimizer.zero_grad()
    if watch:
        watch.close()
    return bits(model, optimizers), watch and watch.log_dir


# -- Lightning --------------------------------------------------------------------------------


class Module(pl.LightningModule):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.net = Network()
        self.what = what
        self.automatic_optimization = what != "optimizers"

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = cross_entropy(logits, y)
        self.log("train_acc", (logits.argmax(1) == y).float().mean())
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = self.net.groups(2 if self.what == "optimizers" else 1)
        return [torch.optim.AdamW(part, lr=1e-2) for part in parts]


def in_lightning(logs: Path, watched: bool, what: str) -> tuple[dict[str, Any], Path | None]:
    seed()
    module = Module(what)
    if what == "compile":
        module.net.compile(backend="aot_eager")
    callback = lightning.GrokWatchCallback(**everything(None)) if watched else None
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS * (2 if what == "optimizers" else 1),  # it counts every optimizer's steps
        max_epochs=-1,
        check_val_every_n_epoch=1,
        precision="bf16-mixed" if what == "amp" else "32-true",
        accumulate_grad_batches=3 if what == "accumulation" else 1,
        gradient_clip_val=None if what == "optimizers" else 1.0,
        callbacks=[callback] if callback else [],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=pl.loggers.TensorBoardLogger(logs),
        log_every_n_steps=1,
    )
    workers = 2 if what == "workers" else 0
    trainer.fit(module, loader(workers), DataLoader(Noisy(96), batch_size=BATCH))
    assert trainer.global_step >= STEPS
    return bits(module.net, trainer.optimizers), callback and callback.log_dir


# -- Hugging Face -----------------------------------------------------------------------------


def collate(examples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    x, y = zip(*examples, strict=True)
    return {"x": torch.stack(x), "labels": torch.stack(y)}


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def in_huggingface(folder: Path, watched: bool, what: str) -> tuple[dict[str, Any], Path | None]:
    seed()
    model = Network()
    callback = (
        huggingface.GrokWatchCallback(tensorboard=True, **everything(folder)) if watched else None
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-2,
        bf16=what == "amp",
        gradient_accumulation_steps=3 if what == "accumulation" else 1,
        torch_compile=what == "compile",
        torch_compile_backend="aot_eager" if what == "compile" else None,
        dataloader_num_workers=2 if what == "workers" else 0,
        eval_strategy="steps",
        eval_steps=5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        label_names=["labels"],
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Noisy(96),
        eval_dataset=Noisy(96),
        data_collator=collate,
        compute_metrics=accuracy,
        callbacks=[callback] if callback else [],
    )
    trainer.train()
    return bits(model, [trainer.optimizer.optimizer]), callback and callback.log_dir
