"""Output on terminals that know few characters."""

import io
import os
import subprocess
import sys

import pytest

import telegrad as tg
from telegrad.lab.spelling import _letters, spell_out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
def test_signs_are_spelt_out_and_letters_lose_their_accents(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    spell_out()
    stream.write("ω = 3 ± 1, ‖x‖₂ ≤ √d·½, Alžběta ✗ 電")
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    for few, own in (("±", "+-"), ("·", "*"), ("½", "1/2"), ("√", "sqrt "), ("≤", "<="), ("ω", "omega")):
        text = text.replace(few, own)
    assert text.replace("Alžběta", "Alzbeta").replace("ž", "z") == "omega = 3 +- 1, ||x||_2 <= sqrt d*1/2, Alzbeta ? ?"


def test_what_knows_all_characters_writes_them(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # no encoding of its own
    spell_out()
    stream.write("ω ± 電")
    stream.flush()
    assert stream.buffer.getvalue().decode() == "ω ± 電"


def test_the_whole_catalogue_can_be_spelt():
    texts = [text for entry in tg.catalogue() for text in (entry.summary, entry.source)]
    unknown = {sign for text in texts for sign in text if _letters(sign) == "?"}
    assert not unknown


BOTH = """
import sys
from telegrad.cli import main

for arguments in (["list"], ["variance", "--size", "1000", "--spec", "topk(k=0.1)", "--repeats", "2"]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_tables_go_through_pipes_of_old_code_pages(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "topk(k=0.1)" in done.stdout.decode(encoding)
