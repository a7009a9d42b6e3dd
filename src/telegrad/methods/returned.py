"""What methods from outside telegrad return, looked at: a mistake there is named where it is made, before a worker or a
server goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from itertools import pairwise
from typing import Any

from torch import Tensor

from telegrad.compressors.returned import an, apart
from telegrad.errors import InputError
from telegrad.methods.base import Round
from telegrad.methods.messages import Broadcast, Message, Upload
from telegrad.spec import wrap_own
from telegrad.wire.code import Code

__all__ = ["GRADIENT", "ORACLE", "looked_at"]

Fault = str
"""What is wrong with it, as the end of a sentence that begins with the function's name; empty where nothing is."""
Look = Callable[[Any, tuple[Any, ...]], Fault]
"""The fault of what a function returned for its arguments."""


def looked_at(cls: type, looks: Mapping[str, Look]) -> None:
    """Make functions of a method's class raise `InputError` for what does not fit their contract, and where they change
    in place what they were handed. Classes of telegrad's own are left as they are.
    """
    wrap_own(cls, {name: partial(_checked, name, look) for name, look in looks.items()})


def _checked(name: str, look: Look, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(self: Any, *given: Any, **named: Any) -> Any:
        given = (*given, *named.values())
        handed = [one for value in given for one in _tensors(value)]
        before = [one._version for one in handed]
        returned = function(self, *given)
        fault = look(returned, given)
        if [one._version for one in handed] != before:
            fault = "changed in place what it was handed; states and vectors are values, make new ones"
        if fault:
            raise InputError(f"{type(self).__name__}.{name} {fault}")
        return _with_own_states(returned, _LENT[name](given)) if name in _LENT else returned

    return checked


_LENT: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "worker_step": lambda given: given[0],  # the gradient, which DDP's bucket holds
    "server_step": lambda given: given[2].workspace,
}
"""What a gradient method's function is lent for a step: overwritten in the next one. (x of an oracle method is not.)"""


def _with_own_states(returned: tuple[Any, dict[str, Tensor]], lent: Any) -> tuple[Any, dict[str, Tensor]]:
    """What a function returned, with copies of states that are made of what was lent to it."""
    if not isinstance(lent, Tensor):
        return returned
    return returned[0], {name: apart(one, lent) for name, one in returned[1].items()}


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in an argument whose changes can be seen."""
    found = value.values() if isinstance(value, dict) else (value,)
    return [one for one in found if isinstance(one, Tensor) and not one.is_inference()]


def of_plan(planned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `plan(step)`."""
    if not isinstance(planned, Round):
        return f"returned {an(planned)}; a telegrad.methods.base.Round is wanted"
    workers = given[0].workers
    for name, ranks in (("cohort", planned.cohort), ("receivers", planned.receivers)):
        nobody = ranks == () and not planned.sends
        if ranks is not None and not nobody and not _increasing(ranks, workers):
            return (
                f"returned Round({name}={ranks!r}); ranks from 0 to {workers - 1} are wanted, in increasing order, one "
                "at least, as a tuple such as step.drawn_cohort(2); or None for all"
            )
    if isinstance(planned.upload, tuple) and len(planned.upload) != workers:
        return f"returned Round(upload=…) of {len(planned.upload)} Contents; one for each of {workers} is wanted"
    if type(planned.local_steps) is not int or planned.local_steps < 1:
        return f"returned Round(local_steps={planned.local_steps!r}); a number of steps from 1 is wanted"
    return ""


def _increasing(ranks: Any, workers: int) -> bool:
    if not isinstance(ranks, tuple) or not ranks or any(type(rank) is not int for rank in ranks):
        return False
    return ranks[0] >= 0 and ranks[-1] < workers and all(a < b for a, b in pairwise(ranks))


def state_of(state: Any) -> Fault:
    """Of a state that a function returned."""
    if not isinstance(state, dict):
        return f"returned {an(state)} as the state; a dict of named tensors is wanted, {{}} for none"
    wrong = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        return f"returned {an(state[wrong])} in the state under {wrong!r}; a tensor is wanted, torch.tensor(…) of it"
    return ""


def same_state(state: Any, before: Any) -> Fault:
    """Of the state that follows another one: it has the same names and shapes."""
    fault = state_of(state)
    if not fault and {name: one.shape for name, one in state.items()} != {n: one.shape for n, one in before.items()}:
        shapes = [{name: tuple(one.shape) for name, one in which.items()} for which in (state, before)]
        fault = f"returned a state of {shapes[0]} after one of {shapes[1]}; the same names and shapes are wanted"
    return fault


def flat(what: str, vector: Any, d: int) -> Fault:
    """Of a vector over d entries."""
    if not isinstance(vector, Tensor) or not vector.is_floating_point() or vector.shape != (d,):
        return f"returned {an(vector)} as {what}; a tensor of floats of shape ({d},) is wanted"
    return ""


def pair(returned: Any, what: str) -> Fault:
    """Of (something, state)."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        return f"returned {an(returned)}; two are wanted, ({what}, state)"
    return ""


def of_piece_init(state: Any, given: tuple[Any, ...]) -> Fault:
    """Of `worker_init(d, dtype)` and `server_init(d, dtype)`."""
    fault, d = state_of(state), given[0]
    if not fault:
        wrong = {name: tuple(one.shape) for name, one in state.items() if one.shape not in ((d,), ())}
        if wrong:
            fault = f"returned the shapes {wrong}; vectors over the {d} entries, or 0-d tensors, are wanted"
    return fault


def of_piece_upload(returned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `worker_step(gradient, state, rank, step)`."""
    if fault := pair(returned, "code"):
        return fault
    (code, state), gradient = returned, given[0]
    if not isinstance(code, Code):
        return f"returned {an(code)}; a code is wanted, compressor.encode(vector, step.uplink(rank))"
    if code.shape != (len(gradient),) or code.dtype != gradient.dtype:
        return (
            f"returned a code of {code.dtype} and shape {code.shape}; one of the gradient's {gradient.dtype} and shape "
            f"({len(gradient)},) is wanted"
        )
    return same_state(state, given[1])


def of_piece_estimate(returned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `server_step(codes, state, step)`."""
    if fault := pair(returned, "estimate"):
        return fault
    return flat("the estimate", returned[0], given[0][0].numel) or same_state(returned[1], given[1])


def of_piece_plan(planned: Any, given: tuple[Any, ...]) -> Fault:
    """Of the plan of a method in which something is sent in every step."""
    fault = of_plan(planned, given)
    if not fault and not planned.sends:
        fault = "returned Round(sends=False); a GradientMethod sends in every step, an OracleMethod may be silent"
    return fault


GRADIENT: dict[str, Look] = {
    "plan": of_piece_plan,
    "worker_init": of_piece_init,
    "server_init": of_piece_init,
    "worker_step": of_piece_upload,
    "server_step": of_piece_estimate,
}


def of_sent(sent: Any, kind: type[Upload]) -> Fault:
    """Of what goes up or down."""
    write = "step.upload(compressor, vector)" if kind is Upload else "step.broadcast(vector)"
    if not isinstance(sent, kind):
        return f"returned {an(sent)}; {kind.__name__} is wanted, such as {write}"
    if not isinstance(sent.messages, tuple) or not all(isinstance(one, Message) for one in sent.messages):
        return (
            f"returned {kind.__name__} of {an(sent.messages)}; a tuple of what step.encode returns is wanted, ({write})"
        )
    if not all(isinstance(number, int | float) for number in sent.numbers):
        return f"returned {kind.__name__} with the numbers {sent.numbers!r}; a tuple of Python's numbers is wanted"
    return ""


def of_upload(returned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `worker_step(oracle, x, state, step)`."""
    if fault := pair(returned, "upload"):
        return fault
    sent, state = returned
    sends = given[3].round.sends
    if sent is None and sends:
        return "returned no upload, where the plan says that something is sent: let plan say Round(sends=False)"
    if sent is not None and not sends:
        return "returned an upload, where the plan says Round(sends=False): return None"
    return (of_sent(sent, Upload) if sends else "") or state_of(state)


def of_broadcast(returned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `server_step(uploads, state, step)`."""
    return pair(returned, "broadcast") or of_sent(returned[0], Broadcast) or state_of(returned[1])


def of_update(returned: Any, given: tuple[Any, ...]) -> Fault:
    """Of `update(x, broadcast, state, step, optimizer)`."""
    return pair(returned, "x") or flat("the next x", returned[0], len(given[0])) or state_of(returned[1])


ORACLE: dict[str, Look] = {
    "plan": of_plan,
    "worker_init": lambda state, given: state_of(state),
    "server_init": lambda state, given: state_of(state),
    "worker_step": of_upload,
    "server_step": of_broadcast,
    "update": of_update,
    "point": lambda x, given: flat("the point", x, len(given[0])),
}
