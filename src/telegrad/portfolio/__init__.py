"""auto, the portfolio that it chooses from, and what it predicts from a vector's magnitudes."""

from telegrad.portfolio.auto import Auto
from telegrad.portfolio.choices import Portfolio, portfolio
from telegrad.portfolio.families import Choice
from telegrad.portfolio.magnitudes import Magnitudes

__all__ = ["Auto", "Choice", "Magnitudes", "Portfolio", "portfolio"]
