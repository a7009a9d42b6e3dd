"""Trellis-coded quantisation (A28): the codes, the paths through their machines, and the streams that carry them."""
