"""How long tests wait for what must happen."""

PATIENCE = 1200
"""Seconds. No measure of speed: it ends a test that hangs, and leaves time to a machine that is busy."""
