"""Largest magnitudes and sums of squares, the same for any number of threads."""
