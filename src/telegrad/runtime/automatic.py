"""The exchange that knows its link: measures, chooses, and measures again now and then."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.autograd import Variable

from telegrad.random import Key
from telegrad.runtime.agreement import check_no_drift
from telegrad.runtime.choosing import CANDIDATES, HALF, PLAIN, QUICK, TRIAL, WARM, Automatic, Choice, Way, decide
from telegrad.runtime.comm_hook import Load, Receiver
from telegrad.runtime.ddp_handle import Handle
from telegrad.runtime.dense_average import average_dense, average_halved
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.gradient_figures import Figures, Sample, figures_of, sampled
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.link import gathered_numbers, measured_link
from telegrad.runtime.noise_cost import FollowedSteps
from telegrad.runtime.step_times import StepTimes, now
from telegrad.theory.cost_model import Cluster, all_reduce

__all__ = ["AutomaticHandle"]

_log = logging.getLogger("telegrad.ddp")
_LOOKS = 0.01  # of the time may go into looks and trials
_THOROUGH = 4  # times as long as the first look the second takes, about
_NOTHING_TO_GAIN = 0.05  # of a step: where communication takes less, compressors are not even timed
_FIRST_CHECK = 16  # steps after a choice, and doubling, what noise costs is seen again: the learning rate may rise


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
        self._noise = FollowedSteps(self.parameters, WARM)
        self._figures: Figures | None = None  # of the last full look
        self._full_look, self._pause = 0, _FIRST_CHECK
        self._specs: tuple[str, ...] = QUICK
        self._spent, self._number = 0.0, 0
        self._device = next(iter(self.parameters.values())).device
        self._times = StepTimes(parts[0], self._device)

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
            self._noise.add(load.views)
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
        """See what noise costs in some steps before a look, and time those that follow."""
        self._number = 0
        left = self._next_look - self.steps
        if self._way not in (PLAIN, HALF) and TRIAL <= left <= WARM + TRIAL:
            self._noise.begin_step(WARM + TRIAL - left, self.exchange)
        self._times.begin_step(0 < left <= TRIAL)

    @property
    def _watched(self) -> bool:
        return self.exchange.errors is not None

    def _pass_on(self, load: Load, at_once: bool) -> None:
        if load.last and (self._times.timed or self._watched):
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
            average_dense(load, self._transport, self.ledger, at_once)
        if load.last:
            self.ledger.dense_steps += self._way == PLAIN
            self.ledger.steps += 1
            buckets.step += 1

    def _halve(self, load: Load) -> None:
        """Not beside the backward pass: what that costs shows in the time of a step."""
        began, (me,) = now(self._device) if self._times.timed else 0.0, self._transport.ranks
        key = self._key.fold(step=self.steps, rank=me).fold(piece=self._number)
        average_halved(load, self._transport, self.ledger, key)
        self._number += 1
        if self._times.timed:
            self._times.blocked += now(self._device) - began

    def _computed(self) -> None:
        self._times.computed()
        Variable._execution_engine.queue_callback(self._averaged)

    def _averaged(self) -> None:
        if self._times.timed:
            self._times.averaged()
        elif self._watched:
            self._noise.end_step()

    def _look(self) -> None:
        """Measure, decide on all ranks alike, and go on with what is chosen."""
        transport, times, noise, began = self._transport, self._times, self._noise, now(self._device)
        settled, full = self.choice is not None and self.choice.settled, self.steps >= self._full_look
        period, compute, waits = times.medians()
        sample = sampled(self._held)
        own = [0.0 if math.isnan(number) else number for number in (period, compute, waits)]
        rows = gathered_numbers(transport, self.ledger, [*own, float(sample.poor), noise.persistence(), *noise.costs])
        period, compute, waits, any_poor, beta = rows[:, :5].amax(0).tolist()
        if any_poor:  # as while a GradScaler finds its scale
            self.choice = Choice(self._way, False, "kept for now: a gradient is zero or not finite")
            self._next_look = self.steps + 1
            return
        times.no_forward()
        if noise.going:
            noise.conclude(rows[:, 5:].reshape(-1).tolist(), beta)
        elif full and settled:
            noise.harm = None
        if times.any:
            self._measured = {**({} if full and settled else self._measured), self._way: period}
        times.forget()
        if full and settled:
            self._figures = None
        self.choice = choice = self._choose(compute, waits, sample)
        self._go(choice.way)
        self._spent += now(self._device) - began
        self._next_look = self.steps + (self._pause_after(choice.way) if choice.settled else WARM + TRIAL)
        if not choice.settled and choice.way not in (PLAIN, HALF):
            noise.begin(self.exchange, {one: view for load in self._held for one, view in load.views.items()})
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
        checks = way not in (PLAIN, HALF) and self._noise.harm is not None and math.isfinite(self._noise.harm)
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

    def _choose(self, compute: float, waits: float, sample: Sample) -> Choice:
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
            pieces = len(self._buckets.pieces)
            known = self._figures = figures_of(sample, cluster, self._specs, entries, pieces, transport, self.ledger)
        where, harm = replace(known.cluster, compute=compute), self._noise.harm
        return decide(
            where, known.profiles, entries, nbytes, self.rule.patience, self._measured, known.noise, known.halving, harm
        )

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
        self._measured, self._times.timed = {}, False
        self._times.forget()
        self._full_look, self._figures = self._next_look, None
        self._noise.forget(self.exchange)
        self._said = way if saved["settled"] else None

    def remove(self) -> None:
        self._times.no_forward()
        super().remove()


def _sizes(parameter: Tensor) -> tuple[int, int]:
    return parameter.numel(), parameter.numel() * parameter.element_size()
