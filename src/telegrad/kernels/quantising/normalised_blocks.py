"""Normalised blocks, the cells of their entries, and back, one compiled pass each (A21)."""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["cells_between", "dead_zone_cells", "looked_up", "product"]

_LANES = 64
_FEW, _BLOCK = 255, 4096


def _between_scalar(z: Any, edges: Any, out: Any) -> None:
    if len(edges) <= _FEW:  # comparisons with all edges go through vector registers, a search does not
        for start in range(0, len(z), _BLOCK):
            part, cells = z[start : start + _BLOCK], out[start : start + _BLOCK]
            for i in range(len(part)):
                cells[i] = part[i] >= edges[0]
            for number in range(1, len(edges)):
                for i in range(len(part)):
                    cells[i] += part[i] >= edges[number]
        return
    for i in range(len(z)):
        low: Any = 0
        half = (len(edges) + 1) >> 1
        while half > 0:
            low += half * np.int64(z[i] >= edges[low + half - 1])
            half >>= 1
        out[i] = low


def _between_reference(z: np.ndarray, edges: np.ndarray, out: np.ndarray) -> None:
    out[:] = np.searchsorted(edges, z, side="right")


def cells_between(z: np.ndarray, edges: np.ndarray, out: np.ndarray) -> None:
    """How many of 2^b − 1 increasing edges are at most z_i."""
    _between(z, edges, out)


def _dead_zone_scalar(z: Any, zero: float, step: float, most: int, out: Any) -> None:
    for i in range(len(z)):
        magnitude = abs(np.float64(z[i]))
        cell: Any = min(np.int64((magnitude - zero) / step) + 1, most) if magnitude >= zero else 0
        out[i] = -cell if z[i] < 0 else cell


def _dead_zone_reference(z: np.ndarray, zero: float, step: float, most: int, out: np.ndarray) -> None:
    magnitude = np.abs(z.astype(np.float64))
    cell = np.where(magnitude >= zero, np.minimum(((magnitude - zero) / step).astype(np.int64) + 1, most), 0)
    out[:] = np.where(z < 0, -cell, cell)


def dead_zone_cells(z: np.ndarray, zero: float, step: float, most: int, out: np.ndarray) -> None:
    """sign(z) times 0 for |z| < zero, else ⌊(|z| − zero) / step⌋ + 1, at most `most`."""
    _dead_zone(z, zero, step, most, out)


def _look_up_scalar(symbols: Any, table: Any, first: int, out: Any) -> None:
    if len(table) == 2:  # a choice goes through vector registers, a table does not
        low, high = table[0], table[1]
        for i in range(len(symbols)):
            out[i] = low if symbols[i] == first else high
        return
    for i in range(len(symbols)):
        out[i] = table[np.int64(symbols[i]) - first]


def _look_up_reference(symbols: np.ndarray, table: np.ndarray, first: int, out: np.ndarray) -> None:
    out[:] = table[symbols.astype(np.int64) - first]


def looked_up(symbols: np.ndarray, table: np.ndarray, first: int, out: np.ndarray) -> None:
    """table[symbol − first] for every symbol."""
    _look_up(symbols, table, first, out)


def _product_scalar(symbols: Any, table: Any, first: int, z: Any) -> float:
    lanes = np.zeros(_LANES)
    whole = len(z) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += table[np.int64(symbols[i + lane]) - first] * z[i + lane]
    for i in range(whole, len(z)):
        lanes[i - whole] += table[np.int64(symbols[i]) - first] * z[i]
    total = 0.0
    for lane in range(_LANES):
        total += lanes[lane]
    return total


def _product_reference(symbols: np.ndarray, table: np.ndarray, first: int, z: np.ndarray) -> float:
    lanes = np.zeros(-(-len(z) // _LANES) * _LANES)
    lanes[: len(z)] = table[symbols.astype(np.int64) - first] * z
    return float(np.cumsum(np.cumsum(lanes.reshape(-1, _LANES), axis=0)[-1])[-1])


def product(symbols: np.ndarray, table: np.ndarray, first: int, z: np.ndarray) -> float:
    """Σ table[symbol_i − first] z_i in float64: 64 interleaved sums, then their sum."""
    return float(_product(symbols, table, first, z))


_between = Loop(_between_scalar, _between_reference)
_dead_zone = Loop(_dead_zone_scalar, _dead_zone_reference)
_look_up = Loop(_look_up_scalar, _look_up_reference)
_product = Loop(_product_scalar, _product_reference)
