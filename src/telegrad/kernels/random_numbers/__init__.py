"""The stream of a key inside loops, and what is drawn from it: subsets, shares of permutations, levels."""
