"""CUDA's streams, events, pinned memory and graphs, pretended: what would be a race on a GPU is an error here.

Every operation belongs to the current stream. Whether one may touch what another has touched before is decided by
vector clocks, as in torch's own CUDA sanitizer (`torch.cuda._sanitizer`). Copies to pinned memory arrive when their
event has been waited for, not before. A captured graph leaves nothing behind but memory without meaning, and computes
the recorded operations anew at each replay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from pretend import Pretend, Pretended, aten, bare, compute

WAITS = {aten.item.default, aten._local_scalar_dense.default, aten.nonzero.default}  # for the device
Clock = dict["Stream", int]


class Stream:
    """A queue of work; `clock` holds what of every stream has happened before what it does next."""

    def __init__(self, *_: Any):
        self.clock: Clock = defaultdict(int)

    def tick(self) -> int:
        self.clock[self] += 1
        return self.clock[self]

    def learn(self, clock: Clock) -> None:
        for stream, time in clock.items():
            self.clock[stream] = max(self.clock[stream], time)

    def wait_stream(self, other: Stream) -> None:
        self.learn(other.clock)


class Memory:
    """What has been done to the memory of some tensors."""

    def __init__(self, made_on: Stream):
        self.made_on = made_on
        self.writes: tuple[Stream, int] = (made_on, 0)
        self.reads: Clock = {}
        self.known_to = {made_on}  # streams that the allocator waits for before it gives the memory away
        self.tensors = WeakIdKeyDictionary()  # in it, as long as somebody holds them


class Cuda(Pretend):
    """The device: enter it, and patch `torch.cuda` with `patch`.

    Attributes:
        races: what would have been read or written at the wrong time.
        replays: how often a graph was replayed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()
        self.memories: dict[int, Memory] = {}
        self.arriving: list[tuple[Tensor, Tensor, Stream, int]] = []
        self.sent: list[tuple[Tensor, Tensor]] = []
        self.captures = Stream()  # where all of a process are captured that name no stream
        self.captured: list[tuple[Any, Any, Any, Any]] | None = None
        self.refused = False
        self.races: list[str] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {key: value for key, value in (kwargs or {}).items() if key != "pin_memory"}
        if func in (aten._pin_memory.default, aten.pin_memory.default):
            return args[0].clone()
        if self.captured is not None:
            return self._capture(func, args, kwargs)
        down = func is aten.copy_.default and not isinstance(args[0], Pretended) and isinstance(args[1], Pretended)
        result = args[0] if down else compute(func, args, kwargs)
        self._note(func, args, kwargs, result)
        if down:  # into pinned memory, later
            self.arriving.append((args[0], args[1].held.clone(), self.stream, self.stream.clock[self.stream]))
            args[0].fill_(torch.nan)
        elif isinstance(result, Pretended):
            self.sent += [(v, v.clone()) for v in tree_leaves(args) if isinstance(v, Tensor) and type(v) is Tensor]
        return result

    # ---- who has touched what

    def _memory(self, tensor: Pretended) -> Memory:
        key = tensor.held.untyped_storage()._cdata
        if key not in self.memories or not len(self.memories[key].tensors):
            if key in self.memories:
                self._given_away(self.memories[key])
            self.memories[key] = Memory(self.stream)
        self.memories[key].tensors[tensor] = None
        return self.memories[key]

    def _given_away(self, memory: Memory) -> None:
        for stream, time in (memory.writes, *memory.reads.items()):
            if stream not in memory.known_to and memory.made_on.clock[stream] < time:
                self.races.append("memory is given away while a stream that the allocator does not know of may use it")

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """An operation on the current stream."""
        now, changed = self.stream.tick(), func._schema.is_mutable
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Pretended)]
        made = [v for v in tree_leaves(result) if isinstance(v, Pretended)]
        places = {v.held.untyped_storage()._cdata for v in given}
        fresh = [v for v in made if v.held.untyped_storage()._cdata not in places]
        if made and not fresh and not changed:
            for view in made:
                self._memory(view)
            return  # a view touches nothing
        for tensor in given:
            is_target = changed and (tensor is args[0] or tensor is kwargs.get("out"))
            self._touch(self._memory(tensor), now, is_target, func)
        for tensor in fresh:
            self._touch(self._memory(tensor), now, True, func)

    def _touch(self, memory: Memory, now: int, writes: bool, func: Any) -> None:
        before = [memory.writes, *(memory.reads.items() if writes else ())]
        if any(self.stream.clock[stream] < time for stream, time in before):
            self.races.append(f"{func} {'writes' if writes else 'reads'} what another stream may still be using")
        if writes:
            memory.writes, memory.reads = (self.stream, now), {}
        else:
            memory.reads[self.stream] = now

    def wait(self, clock: Clock) -> None:
        """The host waits for all that had happened by then: copies arrive."""
        for copy in [copy for copy in self.arriving if copy[3] <= clock.get(copy[2], 0)]:
            copy[0].copy_(copy[1])
            self.arriving.remove(copy)
        if any(not torch.equal(source, then) for source, then in self.sent):
            self.races.append("pinned memory was changed before it was copied")
        self.sent.clear()

    # ---- graphs

    def _capture(self, func: Any, args: Any, kwargs: Any) -> Any:
        leaves = tree_leaves((args, kwargs))
        up = any(type(value) is Tensor and value.ndim for value in leaves)
        if up or func in WAITS or torch.device("cpu") in [v for v in leaves if isinstance(v, torch.device)]:
            self.refused = True
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = compute(func, args, kwargs)
        for made in tree_leaves(result):
            if isinstance(made, Pretended):
                self._memory(made)
        self.captured.append((func, args, kwargs, result))  # type: ignore[union-attr]
        return result

    @contextmanager
    def graph(
        self, graph: Graph, *, stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        """Record instead of computing, on a stream that torch puts back only where the capture was not in vain."""
        before, self.stream = self.stream, stream or self.captures
        self.captured, self.refused = graph.steps, False
        try:
            yield
        finally:
            self.captured = None
            if self.refused:
                raise RuntimeError("operation failed due to a previous error during capture")
            self.stream = before
        for _, args, _, result in graph.steps:
            old = {v.held.untyped_storage()._cdata for v in tree_leaves(args) if isinstance(v, Pretended)}
            for made in tree_leaves(result):
                if isinstance(made, Pretended) and made.held.untyped_storage()._cdata not in old:
                    made.held.fill_(torch.nan if made.held.is_floating_point() else 0)

    def replay(self, steps: list[tuple[Any, Any, Any, Any]]) -> None:
        """Compute what was recorded, into the same memory."""
        self.replays += 1
        for func, args, kwargs, result in steps:
            again = func(*tree_map(bare, args), **tree_map(bare, kwargs))
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Pretended) and old.held.data_ptr() != new.data_ptr():
                    old.held.copy_(new)
            self._note(func, args, kwargs, result)

    # ---- torch.cuda

    @contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        """Work on another stream; None: on this one."""
        before, self.stream = self.stream, stream or self.stream
        try:
            yield
        finally:
            self.stream = before

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `torch.cuda` be this device."""
        device = self

        class Event:
            def __init__(self, **_: Any):
                self.clock: Clock = {}

            def record(self, stream: Stream | None = None) -> None:
                self.clock = dict((stream or device.stream).clock)

            def synchronize(self) -> None:
                device.wait(self.clock)

        for name, value in {
            "Stream": Stream, "Event": Event, "stream": self.on, "graph": self.graph,
            "current_stream": lambda *_: self.stream, "CUDAGraph": lambda: Graph(self),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        known = lambda tensor, stream: self._memory(tensor).known_to.add(stream)  # noqa: E731
        monkeypatch.setattr(Pretended, "record_stream", known, raising=False)

    def finish(self) -> None:
        """At the end: all that nobody holds any more has been given away."""
        for memory in self.memories.values():
            if not len(memory.tensors):
                self._given_away(memory)


class Graph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self, device: Cuda):
        self.device, self.steps = device, []

    def replay(self) -> None:
        self.device.replay(self.steps)
