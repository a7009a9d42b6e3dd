"""A run's state between two steps, kept in a file, so that another process goes on where one was ended."""

from __future__ import annotations

import io
import pickle
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from telegrad.errors import ConfigError, DataError
from telegrad.files import write_atomic
from telegrad.runtime.ledger import Ledger

__all__ = ["Snapshots", "ledger_from", "ledger_state"]

_VERSION = 1


@dataclass
class Snapshots:
    """Where a run keeps its state, and how often: at most once in `every` seconds.

    A run that finds a snapshot of itself goes on from there, to the very parameters and bits of a run that was never
    ended. The file is the caller's to delete once the run is on record.
    """

    path: Path
    every: float = 60.0
    _last: float = field(default_factory=time.monotonic, repr=False)

    def load(self, run: str) -> dict[str, Any] | None:
        """The state kept for `run` (its setting in words), None where there is none.

        Raises `ConfigError` for the snapshot of another run, `DataError` for a damaged one.
        """
        try:
            content = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise DataError(f"{self.path} is no snapshot of a run; delete it, and the run starts anew") from error
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise DataError(f"{self.path} is no snapshot of this version; delete it, and the run starts anew")
        if content["run"] != run:
            raise ConfigError(
                f"{self.path} is the snapshot of another run, {content['run']}; delete it, or move it away"
            )
        state: dict[str, Any] = content["state"]
        return state

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._last >= self.every

    def save(self, run: str, state: dict[str, Any]) -> None:
        """Keep the state of `run`, in place of the one before."""
        buffer = io.BytesIO()
        torch.save({"version": _VERSION, "run": run, "state": state}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, buffer.getvalue())
        self._last = time.monotonic()


def ledger_state(ledger: Ledger) -> dict[str, Any]:
    """An account as plain dictionaries, lists and numbers."""
    return {one.name: _plain(getattr(ledger, one.name)) for one in fields(ledger)}


def ledger_from(state: dict[str, Any]) -> Ledger:
    """The account that `ledger_state` described."""
    counted = {name: [Counter(account) for account in state[name]] for name in ("up", "down")}
    pieces = {name: Counter(account) for name, account in state["by_piece"].items()}
    return Ledger(**{**state, **counted, "by_piece": pieces, "levels": Counter(state["levels"])})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
