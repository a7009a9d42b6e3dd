"""The command line's entry: `telegrad`, and `python -m telegrad`, which torchrun needs
(`torchrun --nproc-per-node=4 -m telegrad compare --distributed`).
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what it needs where telegrad was installed without its extra `lab`."""
    try:
        from telegrad.cli import main as run

        run()  # typer and the commands import what they need when they run
    except ModuleNotFoundError as error:
        missing = (error.name or "telegrad").partition(".")[0]
        if missing == "telegrad":
            raise
        print(f"error: telegrad's command line needs {missing}: pip install 'telegrad[lab]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
