"""Random rotations that both ends rebuild from a seed."""
