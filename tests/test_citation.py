"""The references of a spec: every registered class leads to papers, or is known to be telegrad's own."""

import re
from importlib import resources

import pytest

import telegrad as tg
from command_line import invoke
from telegrad.citation import references
from telegrad.spec import registered

# What no paper describes: telegrad's own, or a way of sending that needs no reference.
OWN = {
    "compressor": {"auto", "identity"},
    "ladder": {"composed", "shared_order"},
    "topology": {"allgather", "hierarchical", "server", "two_phase"},
    "workload": {"quadratic"},
    "method": set(),
}


def keys(spec):
    return re.findall(r"^@\w+\{(\w+),$", tg.citation(spec), re.MULTILINE)


@pytest.mark.parametrize("kind", OWN)
def test_every_registered_class_has_a_reference_or_is_our_own(kind):
    ours = {name: cls for name, cls in registered(kind).items() if cls.__module__.startswith("telegrad.")}
    assert {name for name, cls in ours.items() if not references(cls)} == OWN[kind]


def test_every_reference_on_file_is_read_and_is_whole():
    text = resources.files("telegrad").joinpath("references.bib").read_text(encoding="utf-8")
    found = {paper.key: paper for kind in OWN for cls in registered(kind).values() for paper in references(cls)}
    in_file = re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)
    assert in_file == sorted(in_file)
    assert set(in_file) == set(found)  # none that no class names
    for paper in found.values():
        assert {"author", "title", "year"} <= set(paper.fields)
        assert paper.key.isascii()
        assert paper.fields["year"] in paper.key
        assert paper.bibtex.count("{") == paper.bibtex.count("}")
        assert {"journal", "booktitle", "howpublished", "institution"} & set(paper.fields), paper.key
        link = paper.fields.get("url", "")
        if "arXiv:" in paper.fields.get("howpublished", ""):
            assert link.removeprefix("https://arxiv.org/abs/") == paper.fields["howpublished"].removeprefix("arXiv:")


@pytest.mark.parametrize(
    ("spec", "papers"),
    [
        ("qsgd(levels=4)", {"alistarh2017qsgd"}),
        ("permk(workers=4)", {"szlendak2022permutation"}),
        ("dasha(randk(k=0.1))", {"tyurin2023dasha", "wangni2018gradient", "konecny2016federated"}),
        ("ef21_sgdm(topk(k=0.01), momentum=0.1)", {"fatkhullin2023momentum", "aji2017sparse", "stich2018sparsified"}),
        ("ef_bv(comp(k=0.01, k2=0.5))", {"condat2022efbv"}),
        ("compressed_scaffnew(probability=0.2, owners=2)", {"condat2022provably"}),
        ("sgd(qsgd(levels=4))", {"alistarh2017qsgd", "robbins1951stochastic"}),
        ("sgd(mlmc(stopk(s=0.01)))", {"robbins1951stochastic", "zukerman2025beyond"}),
        ("eden(bits=1)", {"vargaftik2021drive", "vargaftik2022eden"}),
        ("low_rank(rank=1)", {"wang2018atomo"}),
        ("logistic(dataset=a9a)", {"chang2011libsvm"}),
        ("server(rank=0)", set()),
    ],
)
def test_a_spec_cites_its_parts_and_nothing_else(spec, papers):
    assert papers <= set(keys(spec))
    assert set(keys(spec)) - papers <= {"marcellin1990trellis"}
    assert len(keys(spec)) == len(set(keys(spec)))


def test_what_has_no_paper_is_said_and_an_object_is_taken_like_its_spec():
    text = tg.citation("mlmc(shared_order(s=0.01))")
    assert "% shared_order: no paper on file; B12.3" in text
    assert tg.citation(tg.compressor("mlmc(shared_order(s=0.01))")) == text


@pytest.mark.parametrize(("spec", "reason"), [("topkk(k=1)", "did you mean"), ("", "cannot read"), (3, "not by 3")])
def test_a_wrong_spec_is_refused_as_everywhere(spec, reason):
    with pytest.raises(tg.SpecError, match=reason):
        tg.citation(spec)


def test_the_command_line_prints_the_same(capsys):
    shown = invoke("cite", "terngrad")
    assert shown.exit_code == 0
    assert shown.output == tg.citation("terngrad")


def test_every_summary_is_one_sentence_that_names_the_thing():
    for entry in tg.catalogue():
        if entry.kind != "workload" and registered(entry.kind)[entry.name].__module__.startswith("telegrad."):
            assert re.fullmatch(r"[A-Za-z0-9].*[^.]\.", entry.summary), (entry.name, entry.summary)
            assert "=" not in entry.summary, entry.name
