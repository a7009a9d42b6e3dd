"""Pictures of the report, of the page that follows a run, and of this documentation, from the real things:
`python docs/_site/screenshots.py`. Needs Chromium. With `--look FOLDER` every page of the documentation, at 1,200 and
at 400 pixels, light and dark, goes into a folder instead, to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "docs" / "images" / "shots"
METHODS = ["sgd(identity)", "sgd(auto(bits=1))", "ef21_sgdm(topk(k=0.01))"]


def shoot(url: str, to: Path, width: int, height: int, dark: bool = False) -> None:
    """A picture of `url`. A window cannot be as narrow as a phone, but a frame in one can."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        sys.exit("no Chromium was found; install one, for example: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        if width < 500:
            frame = Path(profile, "frame.html")
            frame.write_text(
                f'<body style="margin:0"><iframe src="{url}" width="{width}" height="{height}" frameborder="0">'
            )
            url = frame.as_uri()
        options = ["headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "allow-file-access-from-files"]
        options += [f"user-data-dir={profile}", f"window-size={width},{height}", "virtual-time-budget=4000"]
        options += [f"screenshot={to}", *(["blink-settings=preferredColorScheme=0"] if dark else [])]
        command = [browser, *(f"--{option}" for option in options), url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not to.exists():
        sys.exit(f"no picture of {url}:\n{done.stderr}")


def telegrad(*arguments: str, wait: bool = True) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-m", "telegrad", *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    if wait and process.wait():
        sys.exit(f"telegrad {' '.join(arguments)} failed")
    return process


def answers(host: str, port: int) -> None:
    """Wait until something listens there."""
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.5)
    sys.exit(f"nothing answers at {host}:{port}")


def built(site: Path) -> Path:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    return site


def experiment(out: Path, steps: int, seeds: int) -> list[str]:
    methods = [word for method in METHODS for word in ("--method", method)]
    setting = ["--workers", "4", "--steps", str(steps), "--seeds", str(seeds), "--lr", "0.1", "--lr", "0.3"]
    return ["compare", *setting, *methods, "--out", str(out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--look", type=Path, help="take all pages of the documentation into this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if arguments.look is not None:
            arguments.look.mkdir(parents=True, exist_ok=True)
            site = built(scratch / "site")
            for page in sorted(site.rglob("*.html")):
                label = page.relative_to(site).with_suffix("").as_posix().replace("/", "-")
                for width, dark in ((1200, False), (400, True)):
                    shoot(
                        page.as_uri(),
                        arguments.look / f"{label}-{width}{'-dark' if dark else ''}.png",
                        width,
                        1600,
                        dark,
                    )
            return
        SHOTS.mkdir(parents=True, exist_ok=True)
        telegrad(*experiment(scratch / "first", 100, 2))
        shoot((scratch / "first" / "report.html").as_uri(), SHOTS / "report.png", 1000, 1100)
        running = telegrad(*experiment(scratch / "second", 60, 3), wait=False)
        while len(list((scratch / "second" / "finished").glob("*"))) < 2:
            if running.poll() is not None:
                sys.exit("the experiment to watch ended before it could be watched")
            time.sleep(1)
        watching = telegrad("watch", str(scratch / "second"), "--port", "8765", wait=False)
        try:
            answers("127.0.0.1", 8765)
            shoot("http://127.0.0.1:8765/", SHOTS / "watch.png", 1000, 700)
        finally:
            watching.terminate()
            running.terminate()
        site = built(scratch / "site")
        for label, width, dark in (("docs", 1300, False), ("docs-narrow-dark", 400, True)):
            shoot((site / "start.html").as_uri(), SHOTS / f"{label}.png", width, 800, dark)


if __name__ == "__main__":
    main()
