"""The grammar of specs: canonical text, and refusals that name the culprit and show what to write."""

import dataclasses
import math
import re
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import telegrad as tg
from cases import ours, variants
from telegrad.compressors import QSGD, TernGrad, TopK
from telegrad.compressors.identity import Identity
from telegrad.methods import EF21
from telegrad.methods.local_sgd import LocalSGD
from telegrad.mlmc import MLMC
from telegrad.spec import Registered, build, names, register, registered, resolve_amount
from telegrad.spec.registered import hints_of
from telegrad.spec.registry import known_by_kind

KINDS = ("compressor", "ladder", "method", "topology", "workload")
STOPK = tg.compressor("mlmc(stopk(s=1))").ladder
CLASSES = [cls for kind in KINDS for cls in ours(kind)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.kind}-{cls.spec_name}")
def test_examples_are_built_by_their_class_and_survive_a_round_trip(cls):
    made = build(cls.example, cls.kind)
    assert type(made) is cls
    assert build(str(made), cls.kind) == made
    assert str(build(str(made), cls.kind)) == str(made)
    assert build(made, cls.kind) is made


@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_survives_a_round_trip_and_no_two_share_a_text(kind):
    made = variants(kind)
    assert [build(str(variant), kind) for variant in made] == made
    assert len(set(map(str, made))) == len(made)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("topk(0.01)", "topk(k=0.01)"),
        ("  mlmc( stopk( s = 0.01 ) )  ", "mlmc(stopk(s=0.01))"),
        ("mlmc(ladder=stopk(s=3), probabilities=adaptive)", "mlmc(stopk(s=3))"),
        (
            "mlmc(stopk(values='sign', s=3), probabilities=\"cost\")",
            "mlmc(stopk(s=3, values=sign), probabilities=cost)",
        ),
        ("mlmc(fixed_point())", "mlmc(fixed_point)"),
        ("randk(k=5, scaled=false)", "randk(k=5, scaled=False)"),
        ("randk(k=5, scaled=True)", "randk(k=5)"),
        ("qsgd(4)", "qsgd"),
        ("ef21_sgdm(topk(k=1), momentum=1)", "ef21_sgdm(topk(k=1), momentum=1.0)"),
        ("importance(k=1e-3)", "importance(k=0.001)"),
        ("mlmc(stopk(s=0.01),\n  probabilities=fixed)", "mlmc(stopk(s=0.01), probabilities=fixed)"),
    ],
)
def test_texts_have_one_canonical_form(text, canonical):
    kind = "method" if text.startswith("ef") else "compressor"
    assert str(build(text, kind)) == canonical


REFUSED = {
    # unknown names, with the nearest valid one
    "tpk(k=1)": ["unknown compressor 'tpk'", "did you mean 'topk'?", "`topk(k=0.01)`"],
    "mlmx(stopk(s=1))": ["unknown compressor 'mlmx'", "did you mean 'mlmc'?"],
    "mlmc(rnt)": ["unknown ladder 'rnt'", "did you mean 'rtn'?", "`rtn(grids=12)`"],
    "mlmc(topk(k=1))": ["'topk' is a compressor, and a ladder is wanted here", "`stopk(s=0.01)`"],
    "zzz": ["unknown compressor 'zzz'", "valid: ", "identity", "topk"],
    # another kind
    "sgd(identity)": ["'sgd' is a method, and a compressor is wanted here", "for example"],
    # arguments
    "topk(q=1)": ["unknown argument 'q' of topk", "valid: k, values", "`topk(k=0.01)`"],
    "topk(k=1, valuse=sign)": ["unknown argument 'valuse'", "did you mean 'values'?"],
    "topk(k=1, **{'values': 'sign'})": ["unknown argument", "'**'"],
    "topk(k=1, k=2)": ["'k'", "twice", "`topk(k=0.01)`"],
    "topk(1, k=2)": ["'k'", "twice", "`topk(k=0.01)`"],
    "topk": ["topk needs k", "`topk(k=0.01)`"],
    "topk()": ["topk needs k"],
    "mlmc": ["mlmc needs ladder", "`mlmc(stopk(s=0.01))`"],
    "identity(4, 5)": ["identity takes 0 arguments", "`identity`"],
    # values
    "topk(k=0)": ["topk(k=0)", "a count (an integer from 1) or a fraction", "`topk(k=0.01)`"],
    "topk(k=-3)": ["topk(k=-3)", "an integer from 1"],
    "topk(k=0.0)": ["topk(k=0.0)", "(0, 1]"],
    "topk(k=1.5)": ["topk(k=1.5)", "(0, 1]"],
    "topk(k=-0.1)": ["topk(k=-0.1)"],
    "topk(k=nan)": ["topk(k=nan)", "int or float is wanted"],
    "topk(k=1e999)": ["topk(k=", "finite"],
    "topk(k=true)": ["topk(k=true)", "int or float is wanted"],
    "topk(k=none)": ["topk(k=none)"],
    "topk(k='3')": ["topk(k='3')", "int or float"],
    "topk(k=1+1)": ["topk(k=1 + 1)", "a number or a word"],
    "topk(k=1j)": ["topk(k=1j)"],
    "topk(k=[1])": ["topk(k=[1])"],
    "topk(*k)": ["topk(k=*k)"],
    "topk(k=1, values=fp16)": ["topk(values=fp16)", "allowed are fp32, bf16, log, sign"],
    "topk(k=1, values=3)": ["topk(values=3)", "allowed are fp32"],
    "mlmc(stopk(s=1), probabilities=best)": ["mlmc(probabilities=best)", "adaptive, fixed, cost"],
    "mlmc(3)": ["`3`", "is not a ladder", "write for example"],
    "mlmc('stopk')": ["'stopk'", "is not a ladder"],
    "qsgd(levels=2.5)": ["qsgd(levels=2.5)", "int is wanted"],
    "qsgd(levels=0)": ["qsgd(levels=0)", "from 1"],
    "rtn(level=31)": ["rtn(level=31)", "from 1 to 30"],
    "fixed_point(level=0)": ["fixed_point(level=0)", "from 1 to 30"],
    "floating_point(level=53)": ["floating_point(level=53)", "from 0 to 52"],
    "mlmc(rtn(grids=1))": ["rtn(grids=1)", "from 2 to 20"],
    "stopk(s=1, keep=0)": ["stopk(keep=0)", "from 1"],
    "randk(k=1, scaled=1)": ["randk(scaled=1)", "bool is wanted"],
    # no spec at all
    "": ["cannot read the spec ``", "for example"],
    "topk(k=1": ["cannot read the spec `topk(k=1`"],
    "topk k=1": ["cannot read the spec"],
    "topk(k=1); import os": ["cannot read the spec"],
    "topk(k=__import__('os'))": ["topk(k=__import__('os'))", "a number or a word"],
    "tg.topk(k=1)": ["tg.topk", "is not a compressor"],
    "lambda: 0": ["lambda", "is not a compressor"],
    "(topk)(k=1)(k=2)": ["is not a compressor"],
    "3": ["`3`", "is not a compressor"],
    "top\0k": ["cannot read the spec"],
    "topk(k=" + "9" * 5000 + ")": ["cannot read the spec"],
    "topk(k=0x" + "f" * 5000 + ")": ["cannot read the spec"],
    "mlmc(" * 300 + ")" * 300: ["cannot read the spec"],
    "topk(k=" + "-" * 400 + "1)": ["topk(k="],
    "topk(k=" + "-" * 20000 + "1)": ["cannot read the spec"],
}


@pytest.mark.parametrize("spec", REFUSED, ids=lambda spec: repr(spec[:40]))
def test_a_refusal_names_the_culprit_and_shows_an_example(spec):
    with pytest.raises(tg.SpecError) as refused:
        tg.compressor(spec)
    for part in REFUSED[spec]:
        assert part in str(refused.value)
    assert "xample" in str(refused.value)


@pytest.mark.parametrize("given_", [3, None, 0.1, ["topk(k=1)"], b"topk(k=1)", tg.Key(0)], ids=repr)
def test_what_is_neither_text_nor_object_is_refused(given_):
    with pytest.raises(tg.SpecError, match="a compressor is given by a spec string such as `"):
        tg.compressor(given_)


def test_an_object_of_another_kind_is_refused():
    for wrong, kind in [(tg.method("sgd(identity)"), "compressor"), (tg.compressor("identity"), "ladder")]:
        with pytest.raises(tg.SpecError) as refused:
            build(wrong, kind)
        assert f"`{wrong}` is a {wrong.kind}; a {kind} is wanted here, for example `" in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("ef21(sgd(identity))", ["'sgd' is a method, and a compressor is wanted here"]),
        ("server", ["'server' is a topology, and a method is wanted here"]),
        ("unheard_of", ["unknown method 'unheard_of'", "valid: ", "ef21"]),
        ("ef12(topk(k=1))", ["unknown method 'ef12'", "did you mean 'ef"]),
        ("ef21_sgdm(topk(k=1), momentum=0)", ["ef21_sgdm(momentum=0.0)", "(0, 1]"]),
        ("ef21_sgdm(topk(k=1), momentum=1.1)", ["ef21_sgdm(momentum=1.1)"]),
        ("ef21(topk(k=0))", ["topk(k=0)"]),
    ],
)
def test_methods_are_refused_in_the_same_words(spec, parts):
    with pytest.raises(tg.SpecError) as refused:
        tg.method(spec)
    for part in [*parts, "for example `"]:
        assert part in str(refused.value)


@settings(max_examples=400)
@given(
    st.one_of(
        st.text(max_size=30),
        st.text("topkmlcs(),=.0123456789-*'[]{}:eE_ \n", max_size=40),
        st.lists(
            st.sampled_from(["mlmc", "(", ")", "stopk", "s", "=", "0.1", ",", "k", "topk", "sign", "values", "-", "1"]),
            max_size=12,
        ).map("".join),
    )
)
def test_any_text_is_a_compressor_or_a_spec_error(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            made = tg.compressor(text)
        except tg.SpecError:
            return
    assert tg.compressor(str(made)) == made


@pytest.mark.parametrize(
    ("amount", "d", "entries"),
    [(0.01, 1000, 10), (0.01, 10, 1), (0.01, 1, 1), (0.5, 5, 2), (1.0, 7, 7), (3, 3, 3), (1, 1, 1), (0.999, 3, 3)],
)
def test_an_amount_is_a_count_or_a_share(amount, d, entries):
    assert resolve_amount(tg.compressor(f"topk(k={amount})"), "k", d) == entries


def test_a_count_above_d_is_refused_with_both_numbers():
    with pytest.raises(tg.SpecError) as refused:
        resolve_amount(tg.compressor("topk(k=11)"), "k", 10)
    for part in ("topk(k=11)", "d = 10", "write a count up to 10, or a fraction such as k=0.01"):
        assert part in str(refused.value)


def test_a_class_registers_itself_under_one_name_only():
    class Thing(Registered):
        kind = "thing of a test"

    @register("one", example="one(size=2)", source="here")
    @dataclasses.dataclass(frozen=True)
    class One(Thing):
        size: int
        mode: str = "plain"

    assert names("thing of a test") == ["one"]
    assert registered("thing of a test") == {"one": One}
    assert str(build("one(2, mode=odd)", "thing of a test")) == "one(size=2, mode=odd)"
    with pytest.raises(tg.SpecError, match=r"'one' is registered twice.*give one another name"):
        register("one", example="one", source="here")(One)

    @dataclasses.dataclass(frozen=True)
    class Another(Thing):
        pass

    Another.__qualname__ = One.__qualname__  # of a function that makes several: none is the other defined anew
    with pytest.raises(tg.SpecError, match="'one' is registered twice"):
        register("one", example="one", source="here")(Another)


def test_a_notebooks_cell_may_run_again():
    cell = """
@tg.register("again", example="again", source="a notebook")
@dataclasses.dataclass(frozen=True)
class Again(tg.Ladder):
    k: int = {}
"""
    try:
        for k in (1, 2):
            exec(cell.format(k), {"tg": tg, "dataclasses": dataclasses, "__name__": "notebook"})
            assert registered("ladder")["again"].k == k
        with pytest.raises(tg.SpecError, match="registered twice"):
            exec(cell.format(3), {"tg": tg, "dataclasses": dataclasses, "__name__": "another"})
    finally:
        known_by_kind["ladder"].pop("again", None)


@pytest.mark.parametrize(
    ("name", "given", "cls", "reason"),
    [
        *(
            (name, {}, None, f"register({name!r}): a word")
            for name in ("my-coin", "my coin", "", "3d", "lambda", "none")
        ),
        (3, {}, None, "register(3): a word that a spec can name is allowed, such as my_rounding"),
        ("mine", {"example": 3}, None, "register('mine', example=3): a string is allowed"),
        ("mine", {"source": None}, None, "register('mine', source=None): a string is allowed"),
        ("mine", {}, int, "register('mine') was given <class 'int'>: a class below tg.Unbiased"),
        ("mine", {}, lambda x: x, "a class below tg.Unbiased"),
        ("mine", {}, type("Mine", (tg.Ladder,), {}), "Mine is no frozen dataclass; write @dataclass(frozen=True)"),
        (
            "mine",
            {},
            dataclasses.make_dataclass("Mine", [], bases=(type("Plain", (tg.Ladder,), {}),)),
            "Mine is no frozen dataclass",
        ),
    ],
)
def test_what_cannot_be_registered_is_refused_at_once(name, given, cls, reason):
    with pytest.raises(tg.SpecError, match=re.escape(reason)):
        register(name, **{"example": "mine", "source": "here", **given})(cls)


def test_fields_that_no_spec_can_write_are_named():
    class Thing(Registered):
        kind = "unwritable thing"

    @register("odd", example="odd", source="here")
    @dataclasses.dataclass(frozen=True)
    class Odd(Thing):
        sizes: list[int] = dataclasses.field(default_factory=list)

    assert str(build("odd", "unwritable thing")) == "odd(sizes=[])"
    with pytest.raises(
        tg.SpecError, match=re.escape("odd(sizes=[1, 2]): a spec cannot write list[int]; an argument is")
    ):
        build("odd(sizes=[1, 2])", "unwritable thing")

    @register("lost", example="lost", source="here")
    @dataclasses.dataclass(frozen=True)
    class Lost(Thing):
        part: "Nowhere"  # noqa: F821

    with pytest.raises(tg.SpecError, match=r"lost: the types of .*Lost's fields cannot be read, name 'Nowhere' is not"):
        build("lost(part=3)", "unwritable thing")

    taken = dataclasses.make_dataclass("Taken", [("context", int)], bases=(tg.Ladder,), frozen=True)
    with pytest.raises(tg.SpecError, match="a field of Taken is called context"):
        register("taken", example="taken", source="here")(taken)


def test_a_count_of_one_is_not_the_whole():
    assert TopK(1) != TopK(1.0)
    assert TopK(2) == TopK(2)
    assert hash(TopK(2)) == hash(TopK(2))
    assert EF21(TopK(1)) != EF21(TopK(1.0))
    x = torch.arange(1.0, 11.0)
    assert tg.compressor("mlmc(stopk(s=1))").variance(x) > 1000
    assert tg.compressor("mlmc(stopk(s=1.0))").variance(x) == 0.0


def test_the_catalogue_lists_everything_once_with_a_summary():
    entries = tg.catalogue()
    assert len({(entry.kind, entry.name) for entry in entries}) == len(entries)
    for cls in CLASSES:
        (entry,) = [entry for entry in entries if (entry.kind, entry.name) == (cls.kind, cls.spec_name)]
        assert (entry.example, entry.source) == (cls.example, cls.source)
        assert len(entry.summary) > 20


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: TopK("a"), "topk(k='a'): int or float is wanted; for example `topk(k=0.01)`"),
        (lambda: TopK(True), "topk(k=True): int or float is wanted"),
        (lambda: TopK(None), "topk(k=None): int or float is wanted"),
        (lambda: TopK([3]), "topk(k=[3]): int or float is wanted"),
        (lambda: TopK(torch.tensor(0.5)), "topk(k=tensor(0.5000)): int or float is wanted"),
        (lambda: TopK(0.1, values="fp33"), "topk(values='fp33'): fp32 or bf16 or log or sign is wanted"),
        (lambda: QSGD(levels=2.5), "qsgd(levels=2.5): int is wanted"),
        (lambda: QSGD(levels="4"), "qsgd(levels='4'): int is wanted"),
        (
            lambda: EF21("topk(k=0.1)"),
            "a compressor is wanted, not its spec; build it with tg.compressor('topk(k=0.1)')",
        ),
        (lambda: EF21(EF21(TopK(1))), "a compressor is wanted; for example `ef21(topk(k=0.01))`"),
        (lambda: MLMC(TopK(1)), "a ladder is wanted; for example"),
        (lambda: TernGrad(clip=math.inf), "terngrad(clip=inf): the number must be finite; for example `terngrad`"),
        (lambda: LocalSGD(TopK(1.0), local_lr=math.nan), "local_sgd(local_lr=nan): the number must be finite"),
        (lambda: QSGD(levels=-math.inf), "qsgd(levels=-inf): the number must be finite"),
        (lambda: MLMC(STOPK, draws=1e300), "mlmc(draws=1e+300): a number up to 65536 is allowed"),
        (lambda: MLMC(STOPK, draws=math.inf), "mlmc(draws=inf): the number must be finite"),
        (lambda: tg.method("adiana(identity, mu=1, gamma=0)"), "adiana(gamma=0.0): a number above 0 is allowed"),
        (lambda: tg.method("adiana(identity, mu=1, beta=1.5)"), "adiana(beta=1.5): a number in [0, 1] is allowed"),
    ],
)
def test_constructors_take_what_specs_take(make, reason):
    with pytest.raises(tg.SpecError, match=re.escape(reason)):
        make()


def test_infinity_is_a_word_where_a_class_has_one():
    for norm in (math.inf, np.float32("inf"), "inf"):
        assert str(QSGD(levels=4, norm=norm)) == str(tg.compressor("qsgd(levels=4, norm=inf)"))
    with pytest.raises(tg.SpecError, match="the number must be finite"):
        QSGD(levels=4, norm=math.nan)


@pytest.mark.parametrize("spec", ["permk(workers=9223372036854775808)", "mlmc(stopk(s=1), workers=2147483648)"])
def test_more_workers_than_memory_holds_are_refused(spec):
    with pytest.raises(tg.SpecError, match="workers; up to 1048576 are allowed"):
        tg.compressor(spec).encode(torch.ones(10), tg.Key())


def test_numpys_numbers_are_pythons():
    for made, wanted in ((TopK(np.int64(3)), TopK(3)), (QSGD(levels=np.uint8(4)), QSGD(levels=4))):
        assert made == wanted
        assert str(made) == str(wanted)
    assert str(TopK(np.float32(0.5))) == "topk(k=0.5)"
    assert str(TopK(np.float64(0.5))) == "topk(k=0.5)"


@pytest.mark.parametrize("cls", ours("compressor") + ours("ladder") + ours("method") + ours("topology"), ids=str)
def test_every_field_of_every_class_is_checked(cls):
    example = build(cls.example, cls.kind)
    for field in dataclasses.fields(cls):
        if field.init and field.name in hints_of(cls):
            with pytest.raises(tg.SpecError, match=cls.spec_name):
                dataclasses.replace(example, **{field.name: object()})


def test_where_a_method_is_wanted_a_compressor_stands_for_sgd_of_it():
    for spec in ("topk(k=0.1)", TopK(0.1), "sgd(topk(k=0.1))"):
        assert str(tg.method(spec)) == "sgd(topk(k=0.1))"
    with pytest.raises(tg.SpecError, match="did you mean the compressor 'topk'"):
        tg.method("tokp(k=0.1)")
    with pytest.raises(tg.SpecError, match="did you mean 'ef21'"):
        tg.method("fe21(topk(k=0.1))")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("TopK(k=1)", "did you mean the compressor 'topk'?; for example `topk(k=0.01)`"),
        ("EF21(topk(k=1))", "did you mean 'ef21'?; for example `ef21(topk(k=0.01))`"),
        ("topk(K=1)", "unknown argument 'K' of topk; did you mean 'k'?"),
        ("xyz", "tamuna; for example `sgd("),
        ("xyz(", "write for example `sgd("),
    ],
)
def test_the_nearest_name_is_told_whatever_its_capitals(spec, reason):
    with pytest.raises(tg.SpecError, match=re.escape(reason)):
        tg.method(spec)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("ef21(topk(k=0.1))", r"'ef21' is a method, and a compressor is wanted here; build it with tg.method\(…\)"),
        ("digits", "'digits' is a workload, and a compressor is wanted here"),
        ("mlmc(eden(bits=2))", "'eden' is a compressor, and a ladder is wanted here"),
        ("two_level(topk(k=1))", r"'two_level' is a ladder.*mlmc\(…\) makes a compressor of it"),
    ],
)
def test_a_name_of_another_kind_is_said_to_be_one(spec, reason):
    with pytest.raises(tg.SpecError, match=reason):
        tg.compressor(spec)


def test_a_field_that_takes_a_count_a_share_or_a_tuple_is_checked_too():
    def local(given, sampling="uniform"):
        return LocalSGD(Identity(), local_lr=0.1, participation=given, sampling=sampling).participation

    assert [local(given) for given in (None, 2, np.int64(2), np.float32(0.5))] == [None, 2, 2, 0.5]
    assert local([0.5, 1.0], "independent") == local((0.5, 1.0), "independent") == (0.5, 1.0)
    for wrong in ("a", True, {1: 2}):
        with pytest.raises(tg.SpecError, match=r"participation=.*int or float or tuple or None is wanted"):
            local(wrong)
