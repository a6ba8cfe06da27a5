"""The training loop: accelerate for devices and precision, everything else in plain sight.

A run's folder holds `recipe.json`, `log.csv`, TensorBoard events, `last.pt` (all that a run needs to go on) and
`best.safetensors` (the averaged weights that validated best).
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from posezoo.errors import PosezooError
from posezoo.files import atomic_path, write_atomic
from posezoo.models.build import build
from posezoo.models.mobile_fpn import FoldedMobileNetV2, init_backbone
from posezoo.train.recipe import Recipe


class Rows(Protocol):
    """A dataset whose samples follow from the epoch and the row."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]: ...


class Task(Protocol):
    """What one kind of network learns."""

    metric: str  # the figure of `validate` that tells which weights are best
    joints: int  # channels of the network's head

    @property
    def dataset(self) -> Rows:
        """What it learns from, by (epoch, row)."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and figures to show."""

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures on the validation source; empty without one."""


class Order:
    """Batches of (epoch, row): each epoch a permutation that follows from the seed alone, so that a run can resume."""

    def __init__(self, rows: int, batch_size: int, samples: int | None, seed: int):
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows), seed
        self.samples = samples or rows
        self.epoch, self.skip = 0, 0

    def __len__(self) -> int:
        return max(1, self.samples // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        rounds = math.ceil(len(self) * self.batch_size / self.rows)
        order = np.concatenate([rng.permutation(self.rows) for _ in range(rounds)])
        for step in range(self.skip, len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(row)) for row in rows]


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The share of the recipe's rate at `step` of `total`: linear warm-up, then cosine or steps."""
    plan = recipe.schedule
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    progress = (step - plan.warmup_steps) / max(1, total - plan.warmup_steps)
    if plan.kind == "step":
        return plan.factor ** sum(progress >= share for share in plan.milestones)
    least = plan.factor**2
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_model(recipe: Recipe, joints: int) -> nn.Module:
    """The recipe's network with what it starts from."""
    model = build(recipe.model.arch, joints)
    if recipe.model.backbone is not None:
        path = recipe.data.root / recipe.model.backbone
        try:
            with np.load(path) as arrays:
                init_backbone(_backbone(model), dict(arrays))
        except (OSError, ValueError) as err:
            raise PosezooError(f"cannot read backbone weights {path}: {err}") from None
    if recipe.model.weights is not None:
        from posezoo.zoo.weights import load_weights

        load_weights(model, recipe.model.weights)
    if recipe.model.freeze >= 0:
        _backbone(model).freeze(recipe.model.freeze)
    return model


def _backbone(model: nn.Module) -> FoldedMobileNetV2:
    """The backbone that `model.backbone` and `model.freeze` of a recipe speak of."""
    found = getattr(model, "backbone", None)
    if not isinstance(found, FoldedMobileNetV2):
        raise PosezooError("model.backbone and model.freeze are for networks on a folded MobileNetV2 (mobile_pose_fpn)")
    return found


def make_optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Two rates (backbone, rest) and no decay on biases and norms."""
    given = recipe.optimiser
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = given.lr * (given.backbone_lr if name.startswith("backbone.") else 1.0)
            decay = given.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    options = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    return (torch.optim.AdamW if given.name == "adamw" else torch.optim.Adam)(options)


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Averaged weights whose decay warms up, so that the start is soon forgotten."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - now)
            else:  # counters of BatchNorm
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def train(recipe: Recipe, resume: bool = False) -> Path:
    """Run a recipe to its end, or on from its last checkpoint.

    Returns:
        The run's folder.

    Raises:
        PosezooError: data or checkpoint that cannot be used, or a loss that is not a number.
    """
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.run.seed)
    return _Run(recipe, resume).go()


def _make_task(recipe: Recipe) -> Task:
    if recipe.task == "detect":
        from posezoo.train.detect import DetectTask

        return DetectTask(recipe)
    from posezoo.train.pose import PoseTask

    return PoseTask(recipe)


class _Run:
    """One run: its parts, its position, its files."""

    def __init__(self, recipe: Recipe, resume: bool):
        self.recipe, self.folder = recipe, recipe.run.folder
        self.task = _make_task(recipe)
        self.accelerator = Accelerator(mixed_precision=recipe.run.precision, cpu=recipe.run.device == "cpu")
        model = make_model(recipe, self.task.joints)
        if recipe.run.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        world = self.accelerator.num_processes
        if recipe.optimiser.batch_size % world:
            raise PosezooError(f"optimiser.batch_size {recipe.optimiser.batch_size} does not divide by {world} devices")
        given = recipe.optimiser
        self.order = Order(len(self.task.dataset), given.batch_size, recipe.schedule.samples_per_epoch, recipe.run.seed)  # type: ignore[arg-type]
        share = _Share(self.order, self.accelerator.process_index, world)
        workers = recipe.run.workers
        self.loader: DataLoader[dict[str, Tensor]] = DataLoader(
            self.task.dataset,  # type: ignore[arg-type]
            batch_sampler=share,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        optimiser = make_optimiser(recipe, model)
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)
        plain = self.accelerator.unwrap_model(self.model)
        self.ema = make_ema(plain, given.ema) if given.ema else None
        self.step, self.best = 0, -math.inf
        self.total = len(self.order) * recipe.schedule.epochs
        if resume:
            self._load()
        elif (self.folder / "last.pt").exists():
            raise PosezooError(f"{self.folder} already holds a run: add --resume, or choose another run.folder")
        self.log = _Log(self.folder, self.accelerator.is_main_process)

    def go(self) -> Path:
        """Every epoch that is left."""
        if self.accelerator.is_main_process:
            write_atomic(self.folder / "recipe.json", self.recipe.model_dump_json(indent=2))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not self.accelerator.is_main_process) as progress:
            bar = progress.add_task(self.recipe.name, total=self.total, completed=self.step)
            try:
                for epoch in range(self.step // len(self.order), self.recipe.schedule.epochs):
                    self._epoch(epoch, progress, bar)
                    self._validate(epoch)
                    self._save()
            except KeyboardInterrupt:
                self._save()
                raise
        return self.folder

    def _epoch(self, epoch: int, progress: Progress, bar: Any) -> None:
        self.order.epoch, self.order.skip = epoch, self.step - epoch * len(self.order)
        self.model.train()
        if self.recipe.model.keep_norm:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        started, seen = time.perf_counter(), 0
        for batch in self._batches():
            batch = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
            loss, figures = self._update(batch)
            self.step += 1
            seen += self.order.batch_size
            if self.step % self.recipe.run.log_every == 0:
                speed = seen / (time.perf_counter() - started)
                shown = {"loss": loss, **figures, "images_per_s": speed, "lr": self.optimiser.param_groups[-1]["lr"]}
                self.log.write(self.step, "train", shown)
                told = "  ".join(f"{k} {v:.3g}" for k, v in shown.items())
                progress.update(bar, description=f"{self.recipe.name} epoch {epoch + 1}  {told}")
                started, seen = time.perf_counter(), 0
            progress.update(bar, completed=self.step)
            # the epoch's last step is saved once it is validated: a run broken off between the two must not miss that
            if self.step % self.recipe.run.save_every == 0 and self.step % len(self.order):
                self._save()

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """The loader's batches; a worker's complaint is passed on without the traceback that torch wraps it in."""
        try:
            yield from self.loader
        except PosezooError as err:
            raise PosezooError(
                str(err).strip().splitlines()[-1].removeprefix("posezoo.errors.PosezooError: ")
            ) from None

    def _update(self, batch: dict[str, Tensor]) -> tuple[float, dict[str, float]]:
        """One step of the optimiser."""
        rate = learning_rate(self.recipe, self.step, self.total)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        with self.accelerator.autocast():
            loss, figures = self.task.loss(self.model, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            with atomic_path(self.folder / "bad_batch.pt") as path:
                torch.save(batch, path)
            raise PosezooError(
                f"the loss is {value} at step {self.step}; the batch is in {self.folder / 'bad_batch.pt'}. "
                "Lower optimiser.lr, or set optimiser.clip"
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.recipe.optimiser.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.clip)
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update_parameters(self.accelerator.unwrap_model(self.model))
        return value, figures

    def _validate(self, epoch: int) -> None:
        plain = self.accelerator.unwrap_model(self.model)
        if self.accelerator.is_main_process:
            judged = self.ema.module if self.ema is not None else plain
            judged.eval()
            figures = self.task.validate(judged, self.accelerator.device)
            self.log.write(self.step, "validate", figures)
            if figures:
                told = "  ".join(f"{k} {v:.3f}" for k, v in figures.items())
                self.accelerator.print(f"{self.recipe.name} epoch {epoch + 1}: {told}")
            score = figures.get(self.task.metric, float(epoch))
            if score > self.best:
                self.best = score
                save_weights(
                    judged, self.folder / "best.safetensors", {"recipe": self.recipe.name, "epoch": str(epoch + 1)}
                )
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "arch": self.recipe.model.arch,
            "step": self.step,
            "best": self.best,
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "random": torch.get_rng_state(),
        }
        with atomic_path(self.folder / "last.pt") as path:
            torch.save(state, path)

    def _load(self) -> None:
        path = self.folder / "last.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise PosezooError(f"nothing to resume: {path} does not exist") from None
        except Exception as err:
            raise PosezooError(f"cannot resume from {path}: {err}") from None
        if state["arch"] != self.recipe.model.arch:
            raise PosezooError(f"{path} holds {state['arch']}, the recipe asks for {self.recipe.model.arch}")
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.best = state["step"], state["best"]
        torch.set_rng_state(state["random"])


class _Share:
    """The part of each batch that belongs to one process."""

    def __init__(self, order: Order, rank: int, world: int):
        self.order, self.rank, self.world = order, rank, world

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (batch[self.rank :: self.world] for batch in self.order)


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """The model's state as safetensors, whole or not at all."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata)


class _Log:
    """`log.csv` (step, phase, name, value) and, where it is installed, TensorBoard."""

    def __init__(self, folder: Path, active: bool):
        self.path, self.active, self.board = folder / "log.csv", active, None
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, phase: str, figures: dict[str, float]) -> None:
        """Add one line a figure."""
        if not self.active or not figures:
            return
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "phase", "name", "value"])
            writer.writerows([step, phase, name, f"{value:.6g}"] for name, value in figures.items())
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(f"{phase}/{name}", value, step)
            self.board.flush()
