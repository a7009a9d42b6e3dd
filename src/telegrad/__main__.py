"""`python -m telegrad`, which torchrun needs: `torchrun --nproc-per-node=4 -m telegrad compare --distributed`."""

from telegrad.cli import main

main()
