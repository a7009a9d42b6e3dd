"""The exchange that knows its link: measures, chooses, and measures again now and then."""

# Annotations must be real types here: DDP looks at those of its hook.

import contextlib
import logging
import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Variable

from telegrad.errors import CommunicationError, SpecError
from telegrad.random import Key
from telegrad.runtime.agreement import check_no_drift
from telegrad.runtime.bfloat16_average import average_in_bfloat16, in_bfloat16, sent_bits
from telegrad.runtime.choosing import CANDIDATES, HALF, PLAIN, QUICK, TRIAL, WARM, Automatic, Choice, Way, decide
from telegrad.runtime.comm_hook import Load, Receiver
from telegrad.runtime.ddp import Handle
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.group_transport import GroupTransport, lost
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.link import gathered_numbers, measured_link
from telegrad.runtime.noise_cost import Watch, cost_of_noise
from telegrad.theory.cost_model import Cluster, Profile, all_reduce
from telegrad.theory.profiles import copy_bandwidth, profile

__all__ = ["AutomaticHandle"]

_log = logging.getLogger("telegrad.ddp")
_SAMPLE, _SHARE, _LARGEST = 1 << 16, 1 / 16, 1 << 20  # entries of the gradient that compressors are tried on,
_STRETCHES = 16  # so many pieces of each bucket
_COMPARED = 2048  # entries of it that all ranks tell each other
_LOOKS = 0.01  # of the time may go into looks and trials
_THOROUGH = 4  # times as long as the first look the second takes, about
_COPIED = 1 << 22  # entries whose copy is timed
_FIGURES = 8  # of a candidate
_NOTHING_TO_GAIN = 0.05  # of a step: where communication takes less, compressors are not even timed
_FIRST_CHECK = 16  # steps after a choice, and doubling, what noise costs is seen again: the learning rate may rise


@dataclass(frozen=True)
class _Figures:
    """What a full look found, the same on all ranks; see `decide`."""

    cluster: Cluster
    profiles: list[Profile]
    halving: float
    noise: float


class ForwardClock:
    """When the newest forward pass began."""

    began = math.nan

    def __call__(self, module: Any, inputs: Any) -> None:
        self.began = time.perf_counter()


class AutomaticHandle(Handle):
    """The handle of `register(model, "auto")`.

    `choice`: what is used and why; None before the first step. In a step with a look, buckets are held until the last
    is there: all gradients are at hand then, and all ranks do the same. All that is decided follows from numbers
    gathered from all ranks. A step of plain DDP is one of `ledger.dense_steps`, booked as a ring all-reduce; what is
    not finite is handed on as DDP does it.
    """

    def __init__(self, *parts: Any, rule: Automatic, seed: int) -> None:
        super().__init__(*parts)
        self.rule, self._key = rule, Key(seed)
        self.choice: Choice | None = None
        self._way, self._next_look = PLAIN, 0
        self._said: Way | None = None
        self._held: list[Load] = []
        self._fresh = True
        self._measured: dict[Way, float] = {}
        self._timed, self._began, self._computed_at = False, math.nan, math.nan
        self._harm: float | None = None  # what noise costs; NaN where that cannot be told
        self._watch: Watch | None = None
        self._views: dict[Tensor, Tensor] = {}
        self._costs, self._square = [math.nan] * (WARM - 1), math.nan
        self._figures: _Figures | None = None  # of the last full look
        self._full_look, self._pause = 0, _FIRST_CHECK
        self._specs: tuple[str, ...] = QUICK
        self._periods: list[float] = []
        self._waits: list[float] = []
        self._blocked = self._spent = 0.0
        self._number = 0
        self._clock = ForwardClock()
        self._clock_hook = parts[0].register_forward_pre_hook(self._clock)

    @property
    def _transport(self) -> GroupTransport:
        transport = self.exchange.transport
        assert isinstance(transport, GroupTransport)
        return transport

    def configuration(self) -> dict[str, Any]:
        """What all ranks must agree on: the rule, not what it chooses."""
        chosen = dict.fromkeys(("topology", "downlink"), "chosen by measurement")
        return {**super().configuration(), "method": str(self.rule), **chosen}

    @property
    def receiver(self) -> Receiver:
        return self._receive

    def _receive(self, load: Load) -> None:
        if self._buckets.left_out or self._buckets.error is not None:
            self._buckets.take(load)
            return
        begins, self._fresh = self._fresh, load.last
        if begins:
            self._begin_step()
        self._held.append(load)
        if self._watched:
            self._views.update(load.views)
        looks = self.steps >= self._next_look
        if looks and not load.last:
            return
        if looks:
            try:
                self._look()
            except BaseException as error:
                self._buckets.error = error
        held, self._held = self._held, []
        for one in held:
            self._pass_on(one, at_once=looks)

    def _begin_step(self) -> None:
        """Time the steps before a look, from first bucket to first bucket: so all that a step does counts."""
        self._number, self._blocked = 0, 0.0
        left = self._next_look - self.steps
        if self._way not in (PLAIN, HALF) and TRIAL <= left <= WARM + TRIAL:
            self._follow(WARM + TRIAL - left)
        before, self._timed = self._timed, 0 < left <= TRIAL
        if before or self._timed:
            now = self._now()
            if before:
                self._periods.append(now - self._began)
            self._began = now

    def _follow(self, place: int) -> None:
        """See what noise costs in the steps before those that are timed: `place` counts them."""
        exchange = self.exchange
        if place == 0:
            self._watch, exchange.errors = Watch(self.parameters.values()), {}
        if self._watch is None:
            return
        if place > 1:
            self._costs[place - 2] = -self._transport.workers * exchange.along / self._square if self._square else 0.0
        self._square, exchange.along = exchange.error[0], 0.0
        if place == WARM:
            exchange.errors, self._views = None, {}
        self._watch.begin()

    @property
    def _watched(self) -> bool:
        return self.exchange.errors is not None

    def _now(self) -> float:
        device = next(iter(self.parameters.values())).device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def _pass_on(self, load: Load, at_once: bool) -> None:
        if load.last and (self._timed or self._watched):
            with contextlib.suppress(RuntimeError):  # outside of a backward pass
                Variable._execution_engine.queue_callback(self._computed)
        if self._buckets.error is None and self._way in (PLAIN, HALF):
            try:
                self._average(load, at_once)
                return
            except BaseException as error:
                self._buckets.error = error
        self._buckets.take(load)

    def _average(self, load: Load, at_once: bool) -> None:
        """DDP's own exchange, or that in bfloat16. `at_once`: DDP has the load's future already."""
        buckets = self._buckets
        if buckets.begins(load.last) and buckets.check_every and self.steps % buckets.check_every == 0:
            check_no_drift(self._transport, self.parameters, self.steps)
        if self._way == HALF:
            self._halve(load)
        else:
            self._reduce(load, at_once)
        if load.last:
            self.ledger.dense_steps += self._way == PLAIN
            self.ledger.steps += 1
            buckets.step += 1

    def _reduce(self, load: Load, at_once: bool) -> None:
        work = dist.all_reduce(load.buffer.div_(self._transport.workers), group=self._group, async_op=True)
        if at_once:
            try:
                work.wait()
            except RuntimeError as error:
                raise lost(error) from error
            load.future.set_result(load.buffer)
        else:
            load.future = work.get_future().then(_first_of)
        bits = 8 * load.buffer.numel() * load.buffer.element_size()
        around = 2 * bits * (self._transport.workers - 1) // self._transport.workers
        _book(self.ledger, self._transport, load.buffer.numel(), bits, around)

    def _halve(self, load: Load) -> None:
        """Not beside the backward pass: what that costs shows in the time of a step."""
        began, (me,) = self._now() if self._timed else 0.0, self._transport.ranks
        key = self._key.fold(step=self.steps, rank=me).fold(piece=self._number)
        average_in_bfloat16(load.buffer, self._transport, key)
        self._number += 1
        load.future.set_result(load.buffer)
        entries = load.buffer.numel()
        _book(self.ledger, self._transport, entries, 16 * entries, sent_bits(entries, self._transport.workers))
        if self._timed:
            self._blocked += self._now() - began

    def _computed(self) -> None:
        self._computed_at = self._now()
        Variable._execution_engine.queue_callback(self._averaged)

    def _averaged(self) -> None:
        if self._timed:
            self._waits.append(self._now() - self._computed_at + self._blocked)
        elif self._watched and self._watch is not None:
            self._watch.end(self._views)

    def _look(self) -> None:
        """Measure, decide on all ranks alike, and go on with what is chosen."""
        transport, ledger, began = self._transport, self.ledger, self._now()
        settled, full = self.choice is not None and self.choice.settled, self.steps >= self._full_look
        period, waits = (statistics.median(own) if own else math.nan for own in (self._periods, self._waits))
        compute = max(period - waits, 1e-6) if self._periods and self._waits else self._now() - self._clock.began
        sample, copying = self._sample()
        poor = not bool(sample.isfinite().all()) or not bool(sample.any())
        beta = self._watch.persistence() if self._watch is not None else math.nan
        own = [0.0 if math.isnan(number) else number for number in (period, compute, waits)]
        rows = gathered_numbers(transport, ledger, [*own, float(poor), beta, *self._costs])
        period, compute, waits, any_poor, beta = rows[:, :5].amax(0).tolist()
        if any_poor:  # as while a GradScaler finds its scale
            self.choice = Choice(self._way, False, "kept for now: a gradient is zero or not finite")
            self._next_look = self.steps + 1
            return
        self._clock_hook.remove()
        if self._watch is not None:
            self._harm, self._watch = cost_of_noise(rows[:, 5:].reshape(-1).tolist(), beta), None
        elif full and settled:
            self._harm = None
        if self._periods:
            self._measured = {**({} if full and settled else self._measured), self._way: period}
        self._periods, self._waits = [], []
        if full and settled:
            self._figures = None
        self.choice = choice = self._choose(compute, waits, sample, copying)
        self._go(choice.way)
        self._spent += self._now() - began
        self._next_look = self.steps + (self._pause_after(choice.way) if choice.settled else WARM + TRIAL)
        if not choice.settled and choice.way not in (PLAIN, HALF):
            self._follow(0)
            self._views = {one: view for load in self._held for one, view in load.views.items()}
        if choice.settled and choice.way != self._said:
            self._said = choice.way
            if transport.ranks[0] == 0:
                _log.info("step %d: %s", self.steps, choice.reason)

    def _pause_after(self, way: Way) -> int:
        """After how many steps to look again: soon, and then ever later, at what noise costs; at all else when that is
        due.
        """
        if self.steps >= self._full_look:
            self._full_look, self._pause = self.steps + self._lasting(), _FIRST_CHECK
            self._specs = CANDIDATES
        pause, self._pause = self._pause, 2 * self._pause
        left = self._full_look - self.steps
        checks = way not in (PLAIN, HALF) and self._harm is not None and math.isfinite(self._harm)
        return pause if checks and pause + WARM + TRIAL <= left else left

    def _lasting(self) -> int:
        """After how many steps to look at all again: looks and trials that were slower are to take a hundredth of the
        time. The second look at all takes several times as long as the first, and comes once that is worth it.
        """
        spent = float(gathered_numbers(self._transport, self.ledger, [self._spent]).max())
        usual = self._measured[self._way]
        spent += (WARM + TRIAL) * sum(max(0.0, seconds - usual) for seconds in self._measured.values())
        self._spent = 0.0
        first = self._specs is QUICK
        least = WARM + TRIAL if first else self.rule.every
        return max(least, math.ceil((_THOROUGH if first else 1) * spent / (_LOOKS * usual)))

    def _choose(self, compute: float, waits: float, sample: Tensor, copying: float) -> Choice:
        transport, step = self._transport, compute + waits
        if PLAIN in self._measured and self._way == PLAIN and waits <= _NOTHING_TO_GAIN * step:
            share = f"communication takes {100 * waits / step:.2g} % of a step of {1e3 * step:.3g} ms"
            return Choice(PLAIN, True, f"no compression: {share}")
        entries, nbytes = (sum(sizes) for sizes in zip(*map(_sizes, self.parameters.values()), strict=True))
        known = self._figures
        if known is None:
            link = measured_link(transport, self.ledger)
            # As measured: what a full link carries is payload, and all ranks use their processors at once.
            cluster = Cluster(transport.workers, link.bandwidth, link.latency, compute, efficiency=1.0)
            dense = all_reduce(cluster, entries, 8 * nbytes / entries)
            if not self._measured and dense.transfer <= _NOTHING_TO_GAIN * compute:
                return Choice(PLAIN, False, "plain DDP is tried first: little of a step is communication")
            known = self._figures = self._profiled(cluster, sample, copying, entries)
        where, harm = replace(known.cluster, compute=compute), self._harm
        return decide(
            where, known.profiles, entries, nbytes, self.rule.patience, self._measured, known.noise, known.halving, harm
        )

    def _noise(self, sample: Tensor) -> float:
        """The variance of the mean gradient over the square of its own mean, from how the ranks' gradients differ."""
        workers = self._transport.workers
        rows = gathered_numbers(self._transport, self.ledger, sample[:: -(-len(sample) // _COMPARED)].tolist())
        each, mean = float(rows.square().sum(1).mean()), float(rows.mean(0).square().sum())
        if workers < 2 or not each > 0:
            return 0.0
        signal = workers * mean - each
        return (each - mean) / signal if signal > 0 else math.inf

    def _sample(self) -> tuple[Tensor, float]:
        """Some of each bucket that is held, and seconds to copy all of them to where they are encoded."""
        total = sum(load.buffer.numel() for load in self._held)
        size = min(max(_SAMPLE, _SHARE * total), _LARGEST)  # on few entries, what a call costs hides the rest
        share, began = min(1.0, size / total), self._now()
        pieces = [piece for load in self._held for piece in load.buffer.detach().chunk(_STRETCHES)]
        sample = torch.cat([piece[: math.ceil(share * len(piece))] for piece in pieces]).cpu()
        copying = (self._now() - began) / share if self._held[0].buffer.is_cuda else 0.0
        return sample, copying

    def _profiled(self, cluster: Cluster, sample: Tensor, copying: float, entries: int) -> "_Figures":
        """How the candidates, the all-reduce in bfloat16 and the memory do on these gradients; the worst of all
        ranks.
        """
        mine = [figure for spec in self._specs for figure in _figures(spec, sample, entries)]
        memory = 1 / copy_bandwidth(min(entries, _COPIED), repeats=1)
        told = gathered_numbers(self._transport, self.ledger, [self._halving(sample, entries), memory, *mine]).amax(0)
        rows = told[2:].view(-1, _FIGURES).tolist()
        pieces = len(self._buckets.pieces)
        profiles = [
            Profile(spec, entries, bits, omega, encode + copying, decode, True, call, decode_call, again, frame, pieces)
            for spec, (bits, omega, encode, decode, again, call, decode_call, frame) in zip(
                self._specs, rows, strict=True
            )
        ]
        there = replace(cluster, memory_bandwidth=1 / float(told[1]))
        return _Figures(there, profiles, float(told[0]), self._noise(sample))

    def _halving(self, sample: Tensor, entries: int) -> float:
        """Seconds to bfloat16 and back: infinite where no bytes are saved."""
        if any(one.buffer.dtype != torch.float32 for one in self._held):
            return math.inf
        part, seconds = sample.to(self._held[0].buffer.device), math.inf
        for _ in range(3):
            began = self._now()
            in_bfloat16(part, self._key).float()
            seconds = min(seconds, self._now() - began)
        return seconds * (1 + 1 / self._transport.workers) * entries / len(sample)

    def _go(self, way: Way) -> None:
        """Exchange `way` from now on."""
        if way == self._way:
            return
        self._way = way
        if way not in (PLAIN, HALF):
            ledger = self.exchange.ledger
            self._buckets.exchange = exchange_of(way.spec, way.topology, None, self._transport, self._key)
            self.exchange.ledger = ledger

    def state_dict(self) -> dict[str, Any]:
        known = self.choice
        choice = {
            "spec": self._way.spec,
            "topology": self._way.topology,
            "next_look": self._next_look,
            "settled": known is not None and known.settled,
            "reason": known.reason if known else "",
        }
        return {**super().state_dict(), "choice": choice}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        super().load_state_dict(state, strict=strict)
        saved = state["choice"]
        way = Way(saved["spec"], saved["topology"])
        self._go(way)
        looked = bool(saved["reason"])
        self._next_look = max(int(saved["next_look"]), self.steps + WARM + TRIAL) if looked else self.steps
        self.choice = Choice(way, bool(saved["settled"]), saved["reason"]) if looked else None
        self._measured, self._periods, self._waits, self._timed = {}, [], [], False
        self._full_look, self._figures, self._harm = self._next_look, None, None
        self._watch, self.exchange.errors, self._views = None, None, {}
        self._said = way if saved["settled"] else None

    def remove(self) -> None:
        self._clock_hook.remove()
        super().remove()


def _first_of(future: torch.futures.Future[Any]) -> Tensor:
    try:
        found: Tensor = future.value()[0]
    except RuntimeError as error:
        raise CommunicationError(str(lost(error))) from error
    return found


def _sizes(parameter: Tensor) -> tuple[int, int]:
    return parameter.numel(), parameter.numel() * parameter.element_size()


def _figures(spec: str, sample: Tensor, entries: int) -> list[float]:
    """A candidate's bits, ω, seconds to encode, to decode, and to encode an estimate, and a call's own seconds and
    bits; infinity where it does not fit.
    """
    try:
        found = profile(spec, sample, entries, repeats=2)
    except SpecError:
        return [math.inf] * 5 + [0.0, 0.0, 0.0]
    again = found.encode if found.again is None else found.again
    calls = found.encode_call, found.decode_call, found.frame
    return [found.bits, found.omega, found.encode, found.decode, again, *calls]


def _book(ledger: Ledger, transport: GroupTransport, entries: int, bits: int, around: int) -> None:
    """Book the all-reduce of a bucket of `bits`; a rank sends, and receives, `around` for it."""
    (me,) = transport.ranks
    ledger.up[me]["value"] += bits
    ledger.down[me]["value"] += bits
    ledger.by_piece.setdefault("all-reduce", type(ledger.up[me])())["value"] += bits
    ledger.paper_up[me] += 64 * entries
    ledger.messages_up += 1
    ledger.sent[me] += around
    ledger.received[me] += around
