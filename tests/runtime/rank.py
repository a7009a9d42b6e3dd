"""Runs a script with its arguments as one rank, and ends the process as soon as the script has ended.

    rank.py SCRIPT ARGUMENTS...

Python's own way of ending is left out: a thread of gloo that still holds a tensor by then aborts the process, now and
then on a busy machine ("terminate called without an active exception"), also where telegrad has no part. A script that
fails ends as ever.
"""

import os
import runpy
import sys
from pathlib import Path

del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
