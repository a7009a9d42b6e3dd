import json
import math
from dataclasses import replace

import pytest
import torch

import telegrad as tg
from command_line import invoke
from telegrad.errors import ConfigError, DataError, InputError
from telegrad.theory.advice import recommend, step_factor
from telegrad.theory.cost_model import Cluster, Profile, all_reduce, break_even, step_cost
from telegrad.theory.profiles import copy_bandwidth, profile, read_speeds
from telegrad.theory.units import parse_bandwidth, parse_count, parse_seconds

EXACT = {"latency": 0.0, "efficiency": 1.0}  # a wire without surcharges, so that numbers can be worked out by hand
SPARSE = Profile("sparse", 1_000_000, 1e6, 9.0, encode=0.01, decode=0.001)


def test_a_step_adds_up_by_hand():
    there = Cluster(4, 1e8, compute=0.5, **EXACT)
    gathered = step_cost(there, SPARSE, "allgather")  # three messages of 1e6 bits at 1e8 bit/s; four decodings
    assert (gathered.transfer, gathered.encode, gathered.decode) == pytest.approx((0.03, 0.01, 0.004))
    assert gathered.seconds == pytest.approx(0.544)
    assert gathered.sent == 3e6 / 8
    phased = step_cost(there, SPARSE, "two_phase")  # 3/4 of a message out and 3/4 back; a quarter encoded again
    assert (phased.transfer, phased.encode, phased.decode) == pytest.approx((0.015, 0.0125, 0.002))
    served = step_cost(there, SPARSE, "server")  # the server's link: three messages in, three dense estimates out
    assert served.transfer == pytest.approx(3 * (1e6 + 32e6) / 1e8)
    inside = step_cost(replace(there, node=2, node_bandwidth=1e9), SPARSE, "hierarchical")
    assert inside.transfer == pytest.approx(1e6 / 1e8 + 2 * 32e6 / 1e9)
    dense = all_reduce(there, 1_000_000)
    assert (dense.transfer, dense.sent) == pytest.approx((1.5 * 32e6 / 1e8, 1.5 * 4e6))


def test_latency_efficiency_overlap_sharing_and_host():
    there = Cluster(4, 1e8, latency=0.001, efficiency=0.5, compute=0.5)
    assert step_cost(there, SPARSE, "allgather").transfer == pytest.approx(0.06 + 0.002)
    assert step_cost(replace(there, overlap=0.1), SPARSE, "allgather").transfer == pytest.approx(0.012)
    assert step_cost(replace(there, overlap=1.0), SPARSE, "allgather").transfer == 0
    assert step_cost(replace(there, sharing=2.0), SPARSE, "allgather").encode == pytest.approx(0.02)
    slow_host = step_cost(replace(there, host_bandwidth=1e7), SPARSE, "allgather")
    assert slow_host.transfer == pytest.approx(0.3)
    # Where latency rules, recursive doubling (two phases) beats the ring (six).
    assert all_reduce(replace(there, latency=1.0), 1000).transfer == pytest.approx(2.0, rel=0.01)
    assert step_cost(Cluster(1, 1e8), SPARSE, "allgather").transfer == 0


def test_what_a_call_takes_whatever_its_length_counts_for_every_shard():
    """Two-phase makes M + 1 calls to encode and 2M to decode, of a shard's entries each."""
    there, slow = Cluster(4, 1e8, sharing=2.0, **EXACT), replace(SPARSE, encode_call=0.002, decode_call=0.0001)
    assert step_cost(there, slow, "allgather") == step_cost(there, SPARSE, "allgather")
    phased = step_cost(there, slow, "two_phase")
    assert phased.encode == pytest.approx(2 * (1.25 * 0.008 + 5 * 0.002))
    assert phased.decode == pytest.approx(2 * (2 * 0.0009 + 8 * 0.0001))
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = profile("randk(k=0.01)", x)
    assert 0 <= found.encode_call <= found.encode
    assert profile("randk(k=0.01)", x.view(100, 200)).encode_call == 0


def test_a_phase_within_the_burst_that_a_link_earned_passes_at_once():
    # Two phases of .75e6 bits. Before the first one the link earned its whole burst; of it .05e6 bits are left, and
    # before the second one, in which .001 s of decoding and .0025 s of encoding again go by, .35e6 bits are earned.
    there = Cluster(4, 1e8, compute=0.5, burst=0.8e6, **EXACT)
    assert step_cost(there, SPARSE, "two_phase").transfer == pytest.approx(0.75e6 / 1e8)
    # Ten times as much is earned on a link that is ten times as fast.
    assert step_cost(replace(there, bandwidth=1e9), SPARSE, "two_phase").transfer == 0
    # Three messages are one phase, longer than the burst.
    assert step_cost(there, SPARSE, "allgather").transfer == pytest.approx(0.03)
    roomy = replace(there, burst=3e6)
    assert step_cost(roomy, SPARSE, "allgather").transfer == 0
    # A link that has no pause carries no burst but the very first.
    busy = replace(SPARSE, encode=0.0, decode=0.0)
    assert step_cost(replace(roomy, compute=0.0), busy, "allgather").transfer == pytest.approx(0.03)


def test_every_message_has_a_frame_of_its_own_and_estimates_may_take_longer_to_encode():
    framed = replace(SPARSE, frame=1000.0, pieces=2)
    there = Cluster(4, 1e8, **EXACT)
    assert step_cost(there, framed, "allgather").sent == pytest.approx(3 * (1e6 + 1000) / 8)  # one more of two pieces
    assert step_cost(there, framed, "two_phase").sent == pytest.approx(2 * 3 / 4 * (1e6 + 7 * 1000) / 8)  # two by four
    again = step_cost(there, replace(SPARSE, again=0.03), "two_phase")
    assert again.encode == pytest.approx(0.01 + 0.03 / 4)


def test_whole_gradients_that_are_copied_take_the_processors_time():
    """An all-gather's estimate takes the gradient's place, set to zero (half a copy); two-phase cuts, decodes and joins
    whole gradients; a server packs, queues and reads estimates in new memory.
    """
    there = Cluster(4, 1e8, compute=0.5, memory_bandwidth=64e6, fresh_bandwidth=32e6, sharing=2.0, **EXACT)
    free = replace(there, memory_bandwidth=math.inf, fresh_bandwidth=math.inf)
    for topology, copies, fresh in (("allgather", 0.5, 0), ("two_phase", 2.625, 0), ("server", 0.5, 5)):
        slow = step_cost(there, SPARSE, topology)
        assert slow.copies == pytest.approx(2 * (0.5 * copies + fresh))  # s for 32e6 bits
        assert slow.seconds - step_cost(free, SPARSE, topology).seconds == pytest.approx(slow.copies)
    assert step_cost(replace(there, node=2), SPARSE, "hierarchical").copies == pytest.approx(2 * (0.25 + 10))
    assert 1e8 < copy_bandwidth(100_000) < 1e15
    assert 1e8 < copy_bandwidth(100_000, fresh=True) < 1e15
    with pytest.raises(ConfigError, match="from 1"):
        copy_bandwidth(0)


@pytest.mark.parametrize("topology", ["server", "allgather", "two_phase", "hierarchical(node=2)"])
def test_predicted_bytes_are_those_of_the_ledger(topology):
    """What the model says a worker sends, against what the simulator's parcels weigh, without their frames."""
    workers, d = 4, 8192
    workload = f"quadratic(d={d}, examples=64)"
    run = tg.simulate(workload, "sgd(randk(k=0.1))", workers=workers, steps=2, topology=topology)
    sent = max(run.ledger.sent) / 2
    x = torch.randn(d, generator=torch.Generator().manual_seed(0))
    bits = 8 * len(tg.pack(tg.compressor("randk(k=0.1)").encode(x, tg.Key(0))))
    name = topology.partition("(")[0]
    known = Profile("randk", d, bits, 9.0, 0.0, 0.0)
    predicted = step_cost(Cluster(workers, 1e9, node=2 if name == "hierarchical" else 1), known, name)
    # Over `server` the serving rank sends the most, three dense estimates; the model counts a worker's own link.
    predicted_bits = 3 * 32 * d if name == "server" else 8 * predicted.sent
    assert sent == pytest.approx(predicted_bits, rel=0.05)


def test_break_even_is_where_both_cost_the_same():
    there = Cluster(8, 1e9, compute=0.1)

    def sparse(cluster):
        return step_cost(cluster, SPARSE, "allgather").seconds

    def dense(cluster):
        return all_reduce(cluster, SPARSE.d).seconds

    limit = break_even(sparse, dense, there)
    assert sparse(replace(there, bandwidth=limit)) == pytest.approx(dense(replace(there, bandwidth=limit)), rel=1e-6)
    assert sparse(replace(there, bandwidth=limit / 2)) < dense(replace(there, bandwidth=limit / 2))
    assert break_even(lambda c: dense(c) + 1e-9, dense, there) is None
    assert break_even(lambda c: 0.0, dense, there) == math.inf


def test_the_step_factor_runs_between_the_two_regimes_of_b76():
    assert step_factor(9.0, 8, 0.0) == 1 + 9 / 8
    assert step_factor(9.0, 8, math.inf) == 10
    assert step_factor(9.0, 8, 1.0) == pytest.approx((1 + 9 / 8 + 10) / 2)
    assert step_factor(9.0, 8, 0.0, omega_down=1.0) == 2 * (1 + 9 / 8)
    with pytest.raises(ConfigError, match="from 0"):
        step_factor(-1.0, 8, 0.0)


def test_advice_compresses_over_slow_links_only():
    profiles = [SPARSE, Profile("fine", 1_000_000, 4e6, 0.1, 0.02, 0.002)]
    slow = recommend(Cluster(8, 1e7, compute=0.1), profiles)
    assert slow.compress
    assert slow.choice.step.spec == "fine"
    assert slow.choice.seconds == min(one.seconds for one in slow.predictions)
    assert any("fewer bytes" in reason for reason in slow.reasons)
    fast = recommend(Cluster(8, 4e11, compute=0.1), profiles)
    assert not fast.compress
    assert fast.choice is fast.dense
    assert fast.choice.step.spec == "identity"
    biased = recommend(Cluster(8, 1e7), [replace(SPARSE, unbiased=False)])
    assert [one.step.spec for one in biased.predictions] == ["identity"]
    assert biased.reasons[-1] == "sparse is biased and left out"
    with pytest.raises(ConfigError, match="at least one profile"):
        recommend(Cluster(8, 1e7), [])


def test_a_profile_holds_what_was_measured():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = profile("randk(k=0.01)", x, d=200_000, speeds={"randk(k=0.01)": (1e-9, 2e-9)})
    code = tg.compressor("randk(k=0.01)").encode(x, tg.Key(0))
    assert found.bits == 10 * 8 * len(tg.pack(code))
    assert (found.d, found.omega, found.unbiased) == (200_000, pytest.approx(99.0), True)
    assert (found.encode, found.decode) == pytest.approx((2e-4, 4e-4))
    timed = profile("topk(k=0.01)", x, repeats=1)
    assert timed.encode > 0
    assert timed.decode > 0
    assert not timed.unbiased
    with pytest.raises(InputError, match="nothing to profile"):
        profile("randk(k=0.01)", torch.zeros(10))


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        *((parse_bandwidth, text, 1e9) for text in ("1Gbit", "1000 Mbit/s", "1Gbps", "125MB/s", "1e9bit")),
        *((parse_seconds, text, 1e-4) for text in ("0.1ms", "100us", "100 µs", "1e-4", "0.0001s")),
        *((parse_count, text, 25_000_000) for text in ("25e6", "25M", "25000000", "0.025G")),
    ],
)
def test_units_are_read(parse, text, value):
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (parse_bandwidth, "-1Gbit", "above 0"),
        (parse_bandwidth, "0", "unknown unit"),
        (parse_bandwidth, "1Gbyte", "unknown unit 'Gbyte'"),
        (parse_bandwidth, "fast", "is wanted"),
        (parse_bandwidth, "1e999bit", "above 0"),
        (parse_seconds, "-1ms", "from 0"),
        (parse_seconds, "3 years", "unknown unit"),
        (parse_count, "0", "from 1"),
        (parse_count, "2.5", "whole number"),
        (parse_count, "8 workers", "unknown unit"),
    ],
)
def test_bad_units_are_explained(parse, text, said):
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"bandwidth": -1.0}, {"bandwidth": math.nan}, {"latency": -1.0}, {"overlap": 2.0},
              {"node": 9}, {"sharing": 0.5}, {"efficiency": 0.0}, {"compute": math.inf}],
)  # fmt: skip
def test_clusters_that_cannot_be_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name}=.*allowed"):
        Cluster(**({"workers": 8, "bandwidth": 1e9} | wrong))


def bench_file(tmp_path, part, seconds):
    rows = [{"name": "eden", "ours": True, "vector": "gauss", "size": 10**6, "seconds": seconds, "bits": 1}]
    file = tmp_path / f"{part}.json"
    file.write_text(json.dumps({"bench": part, "results": rows}))
    return file


def test_speeds_come_from_bench_files(tmp_path):
    files = [bench_file(tmp_path, "encode", 0.01), bench_file(tmp_path, "decode", 0.005)]
    assert read_speeds(files) == {"eden": (1e-8, 5e-9)}
    with pytest.raises(DataError, match="both"):
        read_speeds(files[:1])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json"):
        read_speeds([tmp_path / "other.json"])


def advise(*arguments):
    result = invoke("advise", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_advise_answers_the_two_questions_of_the_issue(tmp_path):
    speeds = [bench_file(tmp_path, "encode", 0.01), bench_file(tmp_path, "decode", 0.005)]
    known = [word for file in speeds for word in ("--speeds", str(file))]
    out = tmp_path / "advice.json"
    plot = tmp_path / "advice.png"
    code, text, _ = advise(
        "--params", "1e5", "--workers", "8", "--bandwidth", "400Gbit", *known, "--json", str(out), "--plot", str(plot)
    )
    assert code == 0
    assert "recommended: do not compress" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    advice = json.loads(out.read_text())
    assert advice["compress"] is False
    code, text, _ = advise("--params", "25e6", "--workers", "8", "--bandwidth", "10Mbit", *known, "--json", str(out))
    assert code == 0
    advice = json.loads(out.read_text())
    assert advice["recommended"] == "eden @ two_phase"
    assert advice["predictions"][0]["seconds"] > 0
    assert "recommended: eden @ two_phase (" in text
    assert "assumed:" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--bandwidth": "-1Gbit"}, "above 0"),
        ({"--bandwidth": "1Gbyte"}, "unknown unit 'Gbyte'"),
        ({"--workers": "0"}, "from 1"),
        ({"--latency": "soon"}, "a time such as"),
        ({"--topology": "ring"}, "two_phase"),
        ({"--spec": "randq(k=0.1)"}, "did you mean 'randk'"),
        ({"--noise": "-1"}, "from 0"),
    ],
)
def test_advise_explains_bad_input(change, said):
    options = {"--params": "1000", "--workers": "8", "--bandwidth": "1Gbit", "--spec": "randk(k=0.1)"} | change
    code, _, err = advise(*(word for pair in options.items() for word in pair))
    assert code == 2
    assert said in err
