"""One step of learning: the same on one device and on many, in one pass and in several.

A step is of `optimiser.batch_size` samples, shared equally by devices and by passes on each of them. The losses of
poses are means over people, so that the mean of the shares' gradients is that of the whole step. What does depend on
the size of a share: BatchNorm's statistics (`run.sync_batchnorm`: those of a pass on all devices), and the detector's
loss, which divides by what the share's boxes are worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from posezoo.errors import PosezooError
from posezoo.train.checkpoint import first_line, out_of_memory
from posezoo.train.network import Ema, norms
from posezoo.train.order import Batch
from posezoo.train.recipe import Recipe

if TYPE_CHECKING:
    from posezoo.train.loop import Task

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The share of the recipe's rate at `step` of `total`: linear warm-up, then cosine or steps.

    Steps come at shares of the whole run, warm-up included, as the zoos count their epochs.
    """
    plan, rise = recipe.schedule, recipe.schedule.warmup(total)
    if step < rise:
        return (step + 1) / rise
    if plan.kind == "step":
        return plan.factor ** sum(step >= round(share * total) for share in plan.milestones)
    progress = (step - rise) / max(1, total - rise)
    least = plan.factor**2
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def rate_lines(recipe: Recipe, samples: int, total: int) -> Iterator[str]:
    """What one might not expect of the rate of a run of `total` steps, each of so many samples."""
    given, rise = recipe.optimiser, recipe.schedule.warmup(total)
    rate, stated_for = given.rate_for(samples), given.lr_batch_size or given.batch_size
    if samples != stated_for:
        yield f"learning rate {rate:g} for {samples} samples a step, in proportion to {given.lr:g} for {stated_for}"
    if rise > total:
        yield (
            f"learning rate rises over {rise} steps, and the run has {total}: it comes to {rate * total / rise:.3g}, "
            f"never to {rate:g}; lower schedule.warmup_steps, or leave it out: then it is a tenth of the run"
        )


def make_optimiser(recipe: Recipe, model: nn.Module, samples: int | None = None) -> torch.optim.Optimizer:
    """Two rates (backbone, rest) and no decay on biases and norms.

    Args:
        recipe: its `optimiser`.
        model: what learns.
        samples: of a step; None: as many as the recipe says.
    """
    given = recipe.optimiser
    top = given.rate_for(given.batch_size if samples is None else samples)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = top * (given.backbone_lr if name.startswith("backbone.") else 1.0)
            groups.setdefault((rate, given.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not groups:
        raise PosezooError("model.freeze leaves nothing to learn")
    options = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    if given.name == "sgd":
        return torch.optim.SGD(options, lr=top, momentum=given.momentum)
    if given.name == "rmsprop":
        return torch.optim.RMSprop(options, lr=top, momentum=given.momentum)
    return (torch.optim.AdamW if given.name == "adamw" else torch.optim.Adam)(options)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a step; reading it waits for the device.

    Attributes:
        shared: (2,) the mean loss over all passes and devices, and whether any process wants to stop.
        losses: of this process's passes.
        parts: what they were of.
        figures: of the last pass.
    """

    shared: Tensor
    losses: Tensor
    parts: Sequence[Batch]
    figures: dict[str, Any]

    def bad_part(self) -> Batch | None:
        """The samples of the first pass here whose loss is not a number."""
        wrong = (~torch.isfinite(self.losses)).nonzero()
        return self.parts[int(wrong[0])] if len(wrong) else None


class Learner:
    """A network on its devices, and all that moves its weights.

    Attributes:
        plain: the network itself.
        model: the same, as called in training.
        ema: its average, in the main process.
        goes_on: whether there is a checkpoint, with which the sizes of a step have to stay.
    """

    def __init__(
        self, recipe: Recipe, task: Task, model: nn.Module, accelerator: Accelerator, total: int, samples: int
    ):
        """Put it there.

        Args:
            recipe: how to learn.
            task: what.
            model: the network, on the CPU.
            accelerator: of the devices.
            total: steps of the run.
            samples: of a step: fewer than `optimiser.batch_size` where the data are.

        Raises:
            PosezooError: there is no room for it, or the recipe does not fit the devices.
        """
        self.recipe, self.task, self.accelerator, self.total, self.samples = recipe, task, accelerator, total, samples
        self.goes_on = False
        device, several = accelerator.device, accelerator.num_processes > 1
        if recipe.run.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.run.sync_batchnorm and several:
            if device.type == "cpu":
                raise PosezooError(
                    "run.sync_batchnorm needs GPUs: on CPUs, model.keep_norm=true leaves BatchNorm alone"
                )
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        decay = recipe.optimiser.ema if accelerator.is_main_process else 0.0
        with self.room("with the network alone"):
            self.plain = model.to(device)
            self.ema = Ema(self.plain, decay) if decay else None
        self.optimiser = make_optimiser(recipe, self.plain, samples)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.run.precision == "fp16")
        if recipe.run.compile:
            self.plain.compile()
        with self.room("with the network alone"):
            self.model = accelerator.prepare_model(self.plain)

    def train_mode(self) -> None:
        """Ready to learn; `model.keep_norm` leaves BatchNorm as it is in use."""
        self.model.train()
        if self.recipe.model.keep_norm:
            for norm in norms(self.model):
                norm.eval()

    def judged(self) -> nn.Module:
        """The network as it would be used: the average, where there is one."""
        return (self.ema.module if self.ema is not None else self.plain).eval()

    def step(self, parts: Sequence[Batch], number: int, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Learn from one step; a GPU may still be at it on return.

        Args:
            parts: its passes, on the device.
            number: of the step, from 0.
            stop: whether this process wants to stop, asked at the end.

        Raises:
            PosezooError: out of memory; says which sizes to try. Or the network cannot be compiled.
        """
        rate = learning_rate(self.recipe, number, self.total)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        with self.room():
            self.optimiser.zero_grad(set_to_none=True)
            losses = []
            for batch in parts:
                last = batch is parts[-1]
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    with self.autocast():
                        loss, figures = self.task.loss(self.model, batch)
                    self.scaler.scale(loss / len(parts)).backward()
                losses.append(loss.detach().float())
            if self.recipe.optimiser.clip:
                self.scaler.unscale_(self.optimiser)
                nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.optimiser.clip)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            if self.ema is not None:
                self.ema.update(self.plain, number)
            mine = torch.stack(losses)
            shared = torch.stack([mine.mean(), torch.full_like(mine[0], float(stop()))])
            return Outcome(self.accelerator.reduce(shared, "mean"), mine, parts, figures)

    def autocast(self) -> torch.autocast:
        """The precision that the network computes in."""
        precision = self.recipe.run.precision
        return torch.autocast(self.accelerator.device.type, PRECISIONS[precision], enabled=precision != "no")

    @contextmanager
    def room(self, when: str = "") -> Iterator[None]:
        """Say what to try where memory or the compiler fails.

        Args:
            when: where the sizes of a step are not what fails; "": they are.
        """
        try:
            yield
        except (RuntimeError, PosezooError) as err:
            if out_of_memory(err):
                raise PosezooError(self._elsewhere(when) if when else self._smaller()) from err
            if self.recipe.run.compile and type(err).__module__.startswith(("torch._dynamo", "torch._inductor")):
                told = f"torch.compile cannot compile this network here ({first_line(err)}): set run.compile=false"
                raise PosezooError(told) from err
            raise

    @property
    def _place(self) -> str:
        return "the GPU" if self.accelerator.device.type == "cuda" else "this machine"

    def _elsewhere(self, when: str) -> str:
        """What to try where sizes do not help or have to stay: nothing that `--resume` would refuse."""
        instead = ", or set run.device=cpu" if self.accelerator.device.type == "cuda" else ""
        return f"{self._place} is out of memory {when}: see what else uses it{instead}"

    def _smaller(self) -> str:
        """What to try where a pass does not fit."""
        given, devices, batch = self.recipe.optimiser, self.accelerator.num_processes, self.samples
        shares = devices * given.accumulate
        now = batch // shares
        when = f"with {now} samples a pass" if now > 1 else "with one sample a pass"
        told = (
            f"{self._elsewhere(when)}; or, in another run.folder,"
            if self.goes_on
            else f"{self._place} is out of memory {when}:"
        )
        if now <= 1:
            return f"{told} take a smaller input.size_wh or model.arch"
        passes = next((n for n in range(2 * given.accumulate, batch + 1) if batch % (n * devices) == 0), None)
        advice = []
        if passes is not None:
            advice.append(f"optimiser.accumulate={passes} ({batch // (devices * passes)} a pass, the same steps)")
        if self.recipe.run.precision == "no":
            advice.append("run.precision=bf16")
        advice.append(f"{'or ' if advice else ''}optimiser.batch_size={now // 2 * shares}")
        return f"{told} try {', '.join(advice)}"
