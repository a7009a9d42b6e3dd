"""The version of this library; that of its messages is `telegrad.wire.message.VERSION`."""

__all__ = ["__version__"]

__version__ = "0.1.0"
