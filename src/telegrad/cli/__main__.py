"""`python -m telegrad.cli`, for those who have the extra `lab`."""

from telegrad.cli.application import main

main()
