"""Histograms of magnitudes, one pass each: how many entries lie in a bin, and sums over it.

The bins differ because what is read from them differs, and a message may depend on them to the last bit: selection's
are of keys, the floats' own bits (`telegrad.kernels.selection.keys`); `by_exponent` has one bin for each binary
exponent, `by_ratio` 64 an octave of |v_j| / max |v|, equally wide within it, `by_sixteenth_octave` 16 an octave,
equally wide in the logarithm.
"""
