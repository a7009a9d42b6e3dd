"""What the handles of DDP, FSDP2 and outer loops have in common: the account, and a life that ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from telegrad.errors import ConfigError
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.meter import Meter

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Handle", "saved_configuration"]


class Handle(ABC):
    """The account, the state and the end of a model's compressed exchange.

    It lasts as long as its model, whether or not the script keeps the handle. `remove()`, or the end of a `with` block,
    gives the model back: gradients are averaged as they are from then on, and an outer loop makes no more rounds.
    """

    error_every: int = 50
    """In every so many steps the error of this rank's own messages is measured, for `comm/omega`; 0: never."""
    _meter: Meter

    @property
    @abstractmethod
    def ledger(self) -> Ledger:
        """This rank's rows of the account."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps so far, skipped ones included."""

    @property
    def last_step(self) -> dict[str, float]:
        """The figures of the last step, by the names of `metrics`; empty before there was one."""
        return self._meter.last_step()

    def metrics(self) -> dict[str, float]:
        """The mean figures of this rank's steps since the last call, for any logger.

        `comm/bits_up`, `comm/bits_down`: bits of the messages that this rank sent and decoded. `comm/ratio`: bits of
        its uncompressed gradients over `comm/bits_up`. `comm/encode_ms`, `comm/wait_ms`: milliseconds that encoding
        took, and waiting for messages of others. `comm/skipped`: steps skipped so far. `comm/omega`: the squared error
        of this rank's own messages over the squared norm of its gradients, in the last step that was looked at
        (`error_every`); missing for methods that do not send gradients.
        """
        return self._meter.since_asked()

    @abstractmethod
    def gathered_ledger(self) -> Ledger:
        """The account of all ranks; every rank must call this, outside of a backward pass."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""

    @abstractmethod
    def remove(self) -> None:
        """Let the model average its gradients uncompressed, and leave no thread, hook or process group behind.

        Every rank must call this, outside of a backward pass. The account and the state can still be read. A second
        call does nothing.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def saved_configuration(state: Any) -> Mapping[str, Any]:
    """The configuration in what a handle saved. Raises `ConfigError` where it is something else."""
    if isinstance(state, Mapping) and isinstance(state.get("configuration"), Mapping) and "workers" in state:
        return state["configuration"]
    what = (
        f"a mapping of {', '.join(map(str, list(state)[:3])) or 'nothing'}"
        if isinstance(state, Mapping)
        else repr(state)
    )
    raise ConfigError(f"load_state_dict takes what the handle's own state_dict() returned, not {what}")
