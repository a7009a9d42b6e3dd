"""Selection by magnitude: histograms of keys, and the entries that a rank, a threshold or a block means."""
