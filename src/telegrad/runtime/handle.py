"""What the handles of DDP and FSDP2 have in common: the account, and a life that ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from telegrad.runtime.ledger import Ledger

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Handle"]


class Handle(ABC):
    """The account, the state and the end of a model's compressed exchange.

    It lasts as long as its model, whether or not the script keeps the handle. `remove()`, or the end of a `with` block,
    gives the model back: gradients are averaged as they are from then on.
    """

    @property
    @abstractmethod
    def ledger(self) -> Ledger:
        """This rank's rows of the account."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps so far, skipped ones included."""

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
