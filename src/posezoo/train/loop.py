"""The training loop: accelerate for devices and processes, everything else in plain sight.

A run's folder holds `recipe.json`, `log.csv`, TensorBoard events, `last.pt` (all that a run needs to go on), the
weights of the epochs that validated best (`epoch-12.safetensors` and so on, and `best.safetensors`, the first of them),
and at the end `card.md` with `curves.png`.

Several GPUs or nodes: `accelerate launch -m posezoo train ...` or `torchrun --nproc-per-node N -m posezoo train ...`.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from posezoo.errors import PosezooError
from posezoo.files import atomic_path, write_atomic
from posezoo.train import checkpoint
from posezoo.train.begin import begun, join
from posezoo.train.card import write_card
from posezoo.train.interrupts import Interrupts
from posezoo.train.log import NOBODY, Bar, Log, Meter, duration, short
from posezoo.train.network import make_model, norms
from posezoo.train.optimise import Learner, Outcome, rate_lines
from posezoo.train.order import Batch, Order, Rows, Share, loader_error, make_loader
from posezoo.train.recipe import Recipe
from posezoo.words import counted

_GO_ON = "the same command with --resume goes on"
_MOST_SHOWN = 4  # figures of a validation in its line
_SLOW_DATA = 0.1  # share of the time without data above which the log says what to do


class Task(Protocol):
    """What one kind of network learns.

    A task may also have:

    * `order_weights` (rows,): how often each row is drawn, see `Order`;
    * `notes`: lines for the log and the card;
    * `judged_by`: the people of the validation source, for the card;
    * `metric_larger_is_better`: False for a metric that is an error;
    * `draw(batch, path)`: draws samples into a picture file, and gives a line on each.
    """

    metric: str  # the figure of `validate` that tells which weights are best
    joints: int  # channels of the network's head

    @property
    def dataset(self) -> Rows:
        """What it learns from, by (round, row)."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The mean loss of the samples of one pass, and figures to show.

        Figures that are tensors make nobody wait for the device until they are shown; floats do at once.
        """

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures on the validation source; empty without one."""


def train(recipe: Recipe, resume: bool = False) -> Path:
    """Run a recipe to its end, or on from its last checkpoint.

    Ctrl-C (or SIGTERM) ends it after the step at hand, with a checkpoint; a second one ends it at once.

    Returns:
        The run's folder.

    Raises:
        PosezooError: data or checkpoint that cannot be used, a folder with what another run has come to or in which
            one is at work, a loss that is not a number, or no memory.
    """
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.run.seed)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # OpenCV's threads do not survive the fork of a worker, which would wait for them for ever
    try:
        with Interrupts() as interrupts:
            accelerator = join(recipe)
            with begun(recipe.run.folder, resume, accelerator) as goes_on:
                return _Run(recipe, accelerator, goes_on, interrupts, begins_anew=resume and not goes_on).go()
    finally:
        cv2.setNumThreads(threads)


def make_task(recipe: Recipe) -> Task:
    """The task that the recipe names, with its data read."""
    if recipe.task == "detect":
        from posezoo.train.detect import DetectTask

        return DetectTask(recipe)
    from posezoo.train.pose import PoseTask

    return PoseTask(recipe)


class _Run:
    """One run: its parts, its position, its files."""

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, resume: bool, interrupts: Interrupts, begins_anew: bool = False
    ):
        self.recipe, self.folder, self.interrupts = recipe, recipe.run.folder, interrupts
        self.resumed, self.begins_anew, self.accelerator = resume, begins_anew, accelerator
        self.main, self.rank = self.accelerator.is_main_process, self.accelerator.process_index
        self.task = make_task(recipe)
        self.samples = len(self.task.dataset)
        given, plan = recipe.optimiser, recipe.schedule
        weights = getattr(self.task, "order_weights", None)
        self.order = Order(self.samples, given.batch_size, plan.samples_per_epoch, recipe.run.seed, weights)
        self.total = self.order.steps * plan.epochs
        model = make_model(recipe, self.task.joints, fill=not resume, tell=self._say)
        self.learner = Learner(recipe, self.task, model, self.accelerator, self.total, self.order.batch_size)
        self.best = checkpoint.Best(
            self.folder, recipe.run.keep_best, getattr(self.task, "metric_larger_is_better", True)
        )
        self.step = self.validated = 0  # steps and epochs that are behind us
        self.saved = 0  # the step of the last checkpoint
        self.is_whole = True  # whether nothing of the next step has been learnt
        self.seconds, self.sittings = 0.0, 0  # of the sittings before this one
        self.started, self.validation_s = time.perf_counter(), 0.0
        self.latest: dict[str, float] = {}  # what was logged last
        self.told_of_waiting = False
        if self.rank:  # the network is the same everywhere; what is drawn from now on is not
            torch.manual_seed(recipe.run.seed + self.rank)
        if resume:
            self._load()
        if self.main:
            checkpoint.sweep(self.folder)
        self.meter = Meter(self.order.batch_size)
        share = Share(self.order, self.step, self.total, given.accumulate, self.rank, self.accelerator.num_processes)
        self.loader = make_loader(self.task.dataset, share, recipe.run.workers, self.accelerator.device)

    def _holds(self, step: int, phase: str) -> bool:
        """Whether a line of the log is of what the checkpoint has behind it."""
        return step <= (self.validated * self.order.steps if phase == "validate" else self.step)

    def _say(self, line: str) -> None:
        """A line on stdout, once, and at once even where that is a file."""
        self.accelerator.print(line, flush=True)

    def go(self) -> Path:
        """Every epoch that is left."""
        epochs = self.recipe.schedule.epochs
        if self.validated >= epochs and (self.folder / checkpoint.CARD).exists():
            behind = f"all of its {counted(epochs, 'epoch')} are behind it" if epochs > 1 else "its epoch is behind it"
            self._say(f"{self.recipe.name}: nothing is left to do, {behind}: see {self.folder / checkpoint.CARD}")
            return self.folder
        if self.main:
            write_atomic(self.folder / checkpoint.RECIPE, self.recipe.model_dump_json(indent=2, by_alias=True))
        for line in self._opening():
            self._say(line)
        if self.accelerator.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        self.log = Log(self.folder, self.main, self._holds if self.resumed else None)
        with closing(self.log), closing(self._passes()) as passes, Bar(self.total, self.step, self.main) as self.bar:
            try:
                for epoch in range(self.validated, epochs):
                    self._epoch(epoch, passes)
                    if not self.saved:  # see `checkpoint.check_start`
                        self._save()
                    self._validate(epoch)
                    self._save()
            except PosezooError as err:
                raise PosezooError(f"{err}{self._rescued()}") from err
        if self.main:
            card = write_card(self.folder, self.recipe, self.task, self._story())
            self._say(f"{self.recipe.name}: done in {duration(self._elapsed())}, see {card}")
        return self.folder

    def _rescued(self) -> str:
        """Save what has been learnt before an error that one can mend; what to say of it.

        One process of several cannot: it does not know what has become of the others.
        """
        if not self.is_whole or not self.step:
            return ""
        if self.step != self.saved:
            if self.accelerator.num_processes > 1:
                return ""
            try:
                self._save()
            except PosezooError:  # the disk is full: what was wrong before matters more
                return ""
        return f". Step {self.step} is saved: mend this, and {_GO_ON}"

    def _opening(self) -> list[str]:
        """What is about to happen, and what of it one might not expect."""
        recipe, order, learner = self.recipe, self.order, self.learner
        given, devices = recipe.optimiser, self.accelerator.num_processes
        precision = {"no": "float32"}.get(recipe.run.precision, recipe.run.precision)
        size = sum(p.numel() for p in learner.plain.parameters()) / 1e6
        share = order.batch_size // (devices * given.accumulate)
        where = f"{devices} x {self.accelerator.device.type}"
        lines = [
            f"{recipe.name}: {recipe.model.arch}, {size:.1f} M weights, {precision} on {where}",
            f"{counted(self.samples, 'sample')}; {counted(recipe.schedule.epochs, 'epoch')} of "
            f"{counted(order.steps, 'step')} of {order.batch_size}",
        ]
        if order.batch_size < given.batch_size:
            lines.append(f"a step takes every sample there is: {order.batch_size}, not {given.batch_size}")
        lines += rate_lines(recipe, order.batch_size, self.total)
        if share < order.batch_size:
            passes = counted(given.accumulate, "pass", "passes")
            lines.append(f"a step is {counted(devices, 'device')} x {passes} of {counted(share, 'sample')}")
            if norms(learner.plain) and not (recipe.run.sync_batchnorm or recipe.model.keep_norm):
                lines.append(f"BatchNorm takes its statistics from {counted(share, 'sample')}, not from the whole step")
        if self.begins_anew:
            lines.append("nothing to go on from: the run here ended before its first checkpoint, and begins anew")
        if self.step:
            lines.append(f"going on from step {self.step} of {self.total}")
        return [*lines, *getattr(self.task, "notes", ())]

    def _epoch(self, epoch: int, passes: Iterator[list[Batch]]) -> None:
        """The steps that are left of an epoch."""
        self.learner.train_mode()
        self.bar.show(description=f"epoch {epoch + 1}/{self.recipe.schedule.epochs}")
        while self.step < (epoch + 1) * self.order.steps:
            with self.meter.waiting():
                parts = next(passes)
            self.is_whole = False
            outcome = self.learner.step(parts, self.step, lambda: self.interrupts.wanted)
            self.step += 1
            loss, stop = outcome.shared.tolist()  # waits for the device
            if not math.isfinite(loss):
                self._give_up(outcome, loss)
            self.is_whole = True
            self.meter.step()
            if self.step % self.recipe.run.log_every == 0 or self.step % self.order.steps == 0:
                self._tell(loss, outcome)
            self.bar.show(completed=self.step)
            if stop or self.step % self.recipe.run.save_every == 0:
                self._save()
            if stop:
                self._say(f"step {self.step} of {self.total} is in {self.folder}: {_GO_ON}")
                raise KeyboardInterrupt

    def _passes(self) -> Generator[list[Batch], None, None]:
        """Each step's samples, in passes, on the device."""
        batches, device = iter(self.loader), self.accelerator.device
        try:
            while True:
                parts = [next(batches) for _ in range(self.recipe.optimiser.accumulate)]
                with self.learner.room("with the next samples"):
                    parts = [{key: value.to(device, non_blocking=True) for key, value in p.items()} for p in parts]
                yield parts
        except (PosezooError, KeyboardInterrupt, RuntimeError) as err:
            wrong = loader_error(err)
            traceback.clear_frames(err.__traceback__)
        # nothing has a hold of the workers any more: they end now, and nobody has to wait for them later
        del batches
        raise wrong

    def _give_up(self, outcome: Outcome, loss: float) -> None:
        """Keep the samples of a loss that is not a number, and end."""
        path = self.folder / (f"bad_batch.{self.rank}.pt" if self.rank else "bad_batch.pt")
        part, where = outcome.bad_part(), "its samples are another process's"
        if part is not None:
            kept: dict[str, Any] = {"step": self.step - 1, "loss": loss, "batch": part}
            where = f"its samples are in {path} (torch.load gives step, loss and batch)"
            if hasattr(self.task, "draw"):
                kept["samples"] = self.task.draw(part, path.with_suffix(".png"))
                where = f"its samples are drawn in {path.with_suffix('.png')}, and kept in {path} for torch.load"
            with atomic_path(path) as temporary:
                torch.save(kept, temporary)
        best = self.folder / checkpoint.BEST
        start = f"; model.weights={best} begins where it was best" if best.exists() else ""
        wider = ", or take run.precision=bf16, which has more range" if self.recipe.run.precision == "fp16" else ""
        raise PosezooError(
            f"the loss is {loss} at step {self.step - 1}; {where}. If they are sound, lower optimiser.lr or set "
            f"optimiser.clip{wider}, and begin again in another run.folder{start}"
        )

    def _tell(self, loss: float, outcome: Outcome) -> None:
        """Log the steps since the last time."""
        speed = self.meter.figures(self.total - self.step)
        speed["eta_s"] += self.validation_s * (self.recipe.schedule.epochs - self.validated)
        figures = {name: float(value) for name, value in outcome.figures.items()}
        shown = {"loss": loss, **figures, **speed, "lr": self.learner.optimiser.param_groups[-1]["lr"]}
        self.log.write(self.step, "train", shown)
        self.latest = shown
        speeds = f"{speed['images_per_s']:.0f} images/s, {speed['data_wait']:.0%} waiting"
        self.bar.show(figures=f"{short({'loss': loss, **figures})}  {speeds}")

    def _validate(self, epoch: int) -> None:
        """Judge the weights by the task's own metric, and keep them if they are among the best."""
        began = time.perf_counter()
        self.bar.show(figures="validating")
        with self.meter.paused():
            if self.main:
                self._judge(epoch)
            self.accelerator.wait_for_everyone()
        self.validated, self.validation_s = epoch + 1, time.perf_counter() - began

    def _judge(self, epoch: int) -> None:
        recipe, metric = self.recipe, self.task.metric
        judged = self.learner.judged()
        with self.learner.room("while the network is judged"):
            figures = self.task.validate(judged, self.accelerator.device)
        self.log.write(self.step, "validate", figures)
        facts = checkpoint.facts_of(recipe)
        if metric in figures:
            facts["score"] = f"{metric} {figures[metric]:.6g}"
        # without a metric all are equal, and the newest leads
        best = self.best.offer(judged, figures.get(metric, 0.0), epoch + 1, facts)
        shown = {metric: figures[metric], **figures} if metric in figures else figures
        parts = [f"{name} {value:.3f}" for name, value in shown.items() if value != NOBODY][:_MOST_SHOWN]
        if best and parts:
            parts[-1] += " (best)"
        if latest := self.latest:
            parts += [f"loss {latest['loss']:.3g}", f"{latest['images_per_s']:.0f} images/s",
                      f"{latest['data_wait']:.0%} waiting for data", f"{duration(latest['eta_s'])} left"]  # fmt: skip
        self._say(f"epoch {epoch + 1}/{recipe.schedule.epochs}: {'  '.join(parts)}")
        self._advise()

    def _advise(self) -> None:
        """Say once that the data is what holds the run up."""
        waited, workers = self.meter.waited / max(self.meter.seconds, 1e-9), self.recipe.run.workers
        if waited > _SLOW_DATA and not self.told_of_waiting:
            self.told_of_waiting = True
            more = max(1, 2 * workers)
            cpus = os.cpu_count() or 1
            advice = f"try run.workers={more}" if more <= cpus else f"this machine has no more than {cpus} CPUs for it"
            self._say(f"{waited:.0%} of the time goes by waiting for data: {advice}")

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _story(self) -> dict[str, Any]:
        """What the card tells of the run beside its recipe and its log."""
        return {
            "processes": self.accelerator.num_processes,
            "device": self.accelerator.device,
            "ranking": self.best.ranking,
            "steps": self.total,
            "batch_size": self.order.batch_size,
            "epoch_steps": self.order.steps,
            "seconds": self._elapsed(),
            "sittings": self.sittings + 1,
            "weights": sum(p.numel() for p in self.learner.plain.parameters()),
        }

    def _save(self) -> None:
        """Write the checkpoint; every process has to come here."""
        randoms = gather_object([checkpoint.random_state()])
        if self.main:
            self._write(randoms)
        self.saved, self.learner.goes_on = self.step, True

    def _write(self, randoms: list[dict[str, Tensor]]) -> None:
        """The same in the main process."""
        learner = self.learner
        state = {
            "samples": self.samples,
            "step": self.step,
            "validated": self.validated,
            "best": self.best.ranking,
            "written": sorted(self.best.written),
            "seconds": self._elapsed(),
            "sittings": self.sittings + 1,
            "model": learner.plain.state_dict(),
            "ema": learner.ema.module.state_dict() if learner.ema is not None else None,
            "optimiser": learner.optimiser.state_dict(),
            "scaler": learner.scaler.state_dict(),
            "random": randoms,
        }
        checkpoint.write_state(self.folder, self.recipe, state)
        self.best.prune()

    def _load(self) -> None:
        state = checkpoint.read_state(self.folder, self.recipe, self.samples)
        learner = self.learner
        learner.plain.load_state_dict(state["model"])
        if learner.ema is not None:
            learner.ema.module.load_state_dict(state["ema"])
        with learner.room("with the network alone"):
            learner.optimiser.load_state_dict(state["optimiser"])
        learner.scaler.load_state_dict(state["scaler"])
        self.step, self.validated = state["step"], state["validated"]
        self.saved, learner.goes_on = self.step, True
        if self.main:
            self.best.restore([tuple(row) for row in state["best"]], state.get("written", ()))
        self.seconds, self.sittings = state["seconds"], state["sittings"]
        if self.rank < len(state["random"]):
            checkpoint.set_random_state(state["random"][self.rank])
