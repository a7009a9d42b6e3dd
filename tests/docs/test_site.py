"""The documentation builds without a warning, and every citation in it leads to its formula."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation needs mkdocs: pip install 'telegrad[docs]'")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_catalogue_holds_every_registered_name(site):
    from telegrad.spec import registered

    pages = {"method": "methods.html"}
    for kind in ("compressor", "ladder", "topology", "workload", "method"):
        text = (site / pages.get(kind, "catalogue.html")).read_text(encoding="utf-8")
        ours = [name for name, cls in registered(kind).items() if cls.__module__.startswith("telegrad.")]
        assert ours
        assert not [name for name in ours if f'id="{kind}-{name}"' not in text]


def test_citations_become_links_to_anchors(site):
    text = (site / "catalogue.html").read_text(encoding="utf-8")
    found = re.findall(r'href="(reference/[a-z-]+\.html)#([A-F][\d.]+)"', text)
    assert len(found) > 50
    for page, anchor in set(found):
        assert f'id="{anchor}"' in (site / page).read_text(encoding="utf-8"), f"{page}#{anchor}"


def test_links_to_the_repositorys_files_lead_to_copies(site):
    text = (site / "distributed.html").read_text(encoding="utf-8")
    assert 'href="files/examples/ddp_train.py"' in text
    assert (site / "files/examples/ddp_train.py").read_bytes() == (ROOT / "examples/ddp_train.py").read_bytes()
