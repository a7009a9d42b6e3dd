"""Flower: the mod and the strategy against Flower's own classes, message by message."""

import numpy as np
import pytest
import torch

import telegrad as tg

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'telegrad[flower]'")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.mod import comms_mods
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

import telegrad.adapters.flower as flower

NODES = [11, 22, 33]
EXAMPLES = {11: 10, 22: 30, 33: 60}
WEIGHTS = {"layer.weight": (6, 5), "layer.bias": (6,), "norm.steps": ()}


def model(scale=1.0):
    torch.manual_seed(5)
    return {
        "layer.weight": (scale * torch.randn(6, 5)).numpy(),
        "layer.bias": (scale * torch.randn(6)).numpy(),
        "norm.steps": np.array(3, dtype=np.int64),
    }


def record(arrays):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def numbers(arrays):
    return {name: array.numpy() for name, array in arrays.items()}


class Grid:
    """The nodes that a strategy samples from."""

    def get_node_ids(self):
        return NODES


def train(message, context):
    """A client: every float grows by a number of its own, and the counter by one."""
    arrays = numbers(message.content["arrays"])
    step = np.random.default_rng(context.node_id).standard_normal(6).astype(np.float32)
    arrays = {
        "layer.weight": arrays["layer.weight"] + step[:, None],
        "layer.bias": arrays["layer.bias"] + step,
        "norm.steps": arrays["norm.steps"] + 1,
    }
    metrics = MetricRecord({"num-examples": EXAMPLES[context.node_id]})
    return Message(RecordDict({"arrays": record(arrays), "metrics": metrics}), reply_to=message)


def context(node):
    return Context(1, node, {}, RecordDict(), {})


def sent(message):
    """The message as it arrives: Flower fills in who it comes from."""
    message.metadata._message_id = str(message.metadata.dst_node_id)
    return message


def play(strategy, client, contexts, arrays, server_round=1, spoil=lambda node, reply: reply):
    """One round: the strategy's messages, the clients' replies, the aggregate."""
    replies = []
    for message in strategy.configure_train(server_round, record(arrays), ConfigRecord(), Grid()):
        node = message.metadata.dst_node_id
        reply = client(sent(message), contexts[node])
        replies.append(spoil(node, reply))
    aggregate, metrics = strategy.aggregate_train(server_round, replies)
    return None if aggregate is None else numbers(aggregate), metrics


def with_mod(spec, **options):
    telegraph = flower.mod(spec, **options)
    return lambda message, ctxt: telegraph(message, ctxt, train)


def plain_result():
    return play(FedAvg(), train, {node: context(node) for node in NODES}, model())[0]


@pytest.fixture(autouse=True)
def server_process(monkeypatch):
    """Who we are, as Flower's runtime says it to a ServerApp."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture
def contexts():
    return {node: context(node) for node in NODES}


def test_the_identity_gives_flowers_own_average(contexts):
    strategy = flower.compressed(FedAvg)()
    found, metrics = play(strategy, with_mod("identity"), contexts, model())
    for name, array in plain_result().items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == WEIGHTS[name]
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=1e-6)
    assert metrics is not None
    assert type(strategy).__name__ == "CompressedFedAvg"


def test_bits_are_those_of_the_packed_message(contexts):
    strategy = flower.compressed(FedAvg)()
    play(strategy, with_mod("topk(k=4)"), contexts, model())
    update = torch.cat([torch.zeros(30), torch.zeros(6)])
    for node in NODES:
        step = torch.from_numpy(np.random.default_rng(node).standard_normal(6).astype(np.float32))
        before = torch.cat([torch.from_numpy(model()[name]).reshape(-1) for name in ("layer.weight", "layer.bias")])
        update = torch.cat([step.repeat_interleave(5), step])
        change = (before + update) - before
        telegram = tg.compressor("topk(k=4)").encode(change, tg.Key(0)).nbits
        counter = 8 * len(Array(np.array(4, dtype=np.int64)).data)
        assert strategy.ledger.up[1][node] == telegram + counter
        assert strategy.ledger.down[1][node] == 8 * sum(len(a.data) for a in record(model()).values())
    assert strategy.ledger.total("up") == sum(strategy.ledger.up[1].values())


def test_flowers_own_count_stands_beside_ours(contexts, monkeypatch):
    """`by_flower` is the sum of what Flower's `message_size_mod` logs on the clients."""
    counted = []
    monkeypatch.setattr(comms_mods, "log", lambda level, text, *values: counted.append((text.split()[0], *values)))
    strategy, telegraph = flower.compressed(FedAvg)(), with_mod("topk(k=4)")
    play(strategy, lambda m, ctxt: comms_mods.message_size_mod(m, ctxt, telegraph), contexts, model())
    for way, word in (("up", "Outgoing"), ("down", "Incoming")):
        assert strategy.ledger.by_flower[way] == sum(size for text, size in counted if text == word)
        # besides: names of arrays and metrics, the number of examples, the round, each of some bytes
        assert 0 < strategy.ledger.by_flower[way] - strategy.ledger.total(way) / 8 < 60 * len(NODES)


def test_what_flower_cannot_count_does_not_end_a_round(contexts):
    strategy = flower.compressed(FedAvg)()
    messages = list(strategy.configure_train(1, record(model()), ConfigRecord({"note": ""}), Grid()))
    with pytest.raises(ValueError):
        messages[0].content["config"].count_bytes()
    assert strategy.ledger.by_flower["down"] > strategy.ledger.total("down") / 8


def test_an_unbiased_compressor_is_unbiased_over_rounds(contexts):
    """Mean over 400 rounds of the aggregate; z-test at every entry, |z| < 5 (36 entries: level 2e-5 in all)."""
    strategy, client, rounds = flower.compressed(FedAvg)(), with_mod("mlmc(stopk(s=6))"), 400
    found = [play(strategy, client, contexts, model(), server_round=r)[0] for r in range(rounds)]
    for name in ("layer.weight", "layer.bias"):
        draws = np.stack([one[name] for one in found]).astype(np.float64)
        error = (draws.mean(0) - plain_result()[name]) / (draws.std(0) / rounds**0.5 + 1e-6)
        assert np.abs(error).max() < 5


def test_error_memory_sends_in_the_end_what_was_left_out(contexts):
    """With the same update u in every round, Top-k's estimates add up to t · u minus the memory (C4.2)."""
    strategy, client = flower.compressed(FedAvg)(), with_mod("topk(k=6)")
    total = np.zeros((6, 5))
    for r in range(1, 9):
        arrays = play(strategy, client, contexts, model(0.0), server_round=r)[0]
        total += arrays["layer.weight"]
    owed = (
        sum(EXAMPLES[n] * contexts[n].state["telegrad-memory"]["error"].numpy()[:30].reshape(6, 5) for n in NODES) / 100
    )
    step = play(FedAvg(), train, {node: context(node) for node in NODES}, model(0.0))[0]["layer.weight"]
    np.testing.assert_allclose(total + owed, 8 * step, atol=1e-4)


def test_a_compressed_model_goes_down_and_updates_are_added_to_what_was_sent(contexts):
    strategy, seen = flower.compressed(FedAvg)(down="ecdq(bits=6)"), []

    def client(message, ctxt):
        def look(inner, c):
            seen.append(numbers(inner.content["arrays"]))
            return train(inner, c)

        return flower.mod("identity")(message, ctxt, look)

    found, _ = play(strategy, client, contexts, model())
    for name in ("layer.weight", "layer.bias"):
        assert not np.array_equal(seen[0][name], model()[name])
        np.testing.assert_allclose(seen[0][name], model()[name], atol=0.2)
        steps = [np.random.default_rng(n).standard_normal(6).astype(np.float32) * EXAMPLES[n] / 100 for n in NODES]
        mean = sum(steps)[:, None] if name == "layer.weight" else sum(steps)
        np.testing.assert_allclose(found[name], seen[0][name] + mean, atol=1e-5)
    assert seen[0]["norm.steps"] == 3
    assert strategy.ledger.down[1][11] < 8 * sum(len(a.data) for a in record(model()).values())


def test_messages_are_the_same_for_the_same_seed_and_differ_between_nodes_and_rounds(contexts):
    def telegram(seed, server_round, node):
        (message,) = [
            m
            for m in flower.compressed(FedAvg)().configure_train(server_round, record(model()), ConfigRecord(), Grid())
            if m.metadata.dst_node_id == node
        ]
        return with_mod("mlmc(stopk(s=3))", seed=seed)(sent(message), context(node)).content["arrays"]["telegrad"].data

    assert telegram(0, 1, 11) == telegram(0, 1, 11)
    assert len({telegram(seed, r, 22) for seed in range(4) for r in range(4)}) > 4


def spoiled(node, change):
    """A round in which node 22 sends something else."""

    def spoil(which, reply):
        if which == node:
            change(reply)
        return reply

    return spoil


def telegram_of(code):
    data = tg.pack(code)
    return Array("uint8", (len(data),), "telegrad", data)


def nan_update():
    x = torch.zeros(36)
    code = tg.compressor("identity").encode(x + 3e38, tg.Key(0))
    return telegram_of(code)


def telegram_of_ones(entries, dtype=torch.float32):
    return telegram_of(tg.compressor("identity").encode(torch.ones(entries, dtype=dtype), tg.Key(0)))


def foreign(**arrays):
    return lambda reply: reply.content["arrays"].update({name.replace("_", "."): a for name, a in arrays.items()})


def weighed(value):
    return lambda reply: reply.content["metrics"].update({"num-examples": value})


def numpy_header(shape):
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + header.encode()


HOSTILE = {
    "a telegram of another length": foreign(telegrad=telegram_of_ones(35)),
    "another dtype": foreign(telegrad=telegram_of_ones(36, torch.float64)),
    "noise": foreign(telegrad=Array("uint8", (9,), "telegrad", b"123456789")),
    "nothing": foreign(telegrad=Array("uint8", (0,), "telegrad", b"")),
    "no telegram": lambda reply: reply.content["arrays"].pop("telegrad"),
    "plain arrays": lambda reply: reply.content.array_records.update(arrays=record(model())),
    "an array that the model has not": foreign(other=Array(np.zeros(3))),
    "an array of another shape": foreign(norm_steps=Array(np.zeros(3, np.int64))),
    "an array that announces 2^40 entries": foreign(
        norm_steps=Array("int64", (2**40,), "numpy.ndarray", numpy_header((2**40,)))
    ),
    "a pickle": foreign(norm_steps=Array("object", (), "numpy.ndarray", b"\x80\x04N.")),
    "no weight": lambda reply: reply.content["metrics"].clear(),
    "a weight that is not a number": weighed(float("nan")),
    "a negative weight": weighed(-5),
    "two array records": lambda reply: reply.content.array_records.update(more=record(model())),
    "an array record of another name": lambda reply: reply.content.array_records.update(
        more=reply.content.array_records.pop("arrays")
    ),
    "two metric records": lambda reply: reply.content.metric_records.update(more=MetricRecord({"num-examples": 1})),
    "a metric record of another name": lambda reply: reply.content.metric_records.update(
        more=reply.content.metric_records.pop("metrics")
    ),
    "a metric that others have not": lambda reply: reply.content["metrics"].update(loss=0.5),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_client_is_refused_by_name_and_the_round_goes_on(what, contexts):
    strategy = flower.compressed(FedAvg)()
    found, _ = play(strategy, with_mod("identity"), contexts, model(), spoil=spoiled(22, HOSTILE[what]))
    assert [(r, node) for r, node, _ in strategy.ledger.refused] == [(1, 22)]
    honest = {11: 10 / 70, 33: 60 / 70}
    steps = sum(w * np.random.default_rng(n).standard_normal(6).astype(np.float32) for n, w in honest.items())
    np.testing.assert_allclose(found["layer.bias"], model()["layer.bias"] + steps, atol=1e-5)


def test_metrics_of_another_length_are_refused(contexts):
    strategy = flower.compressed(FedAvg)()

    def spoil(node, reply):
        reply.content["metrics"].update(losses=[0.5] * (3 if node == 22 else 2))
        return reply

    play(strategy, with_mod("identity"), contexts, model(), spoil=spoil)
    ((_, node, reason),) = strategy.ledger.refused
    assert node == 22
    assert "('losses', 3)" in reason
    assert "('losses', 2)" in reason


def test_where_two_clients_differ_the_form_of_earlier_rounds_counts(contexts):
    strategy, client = flower.compressed(FedAvg)(), with_mod("identity")
    play(strategy, client, contexts, model())
    few = FedAvg.configure_train(strategy, 2, record(model()), ConfigRecord(), Grid())
    replies = [client(sent(message), contexts[message.metadata.dst_node_id]) for message in few]
    ours, theirs = (one for one in replies if one.metadata.src_node_id in (22, 33))
    theirs.content["metrics"].update(loss=0.5)
    assert strategy._taken(2, "train", [theirs, ours], strategy._decode) == [ours]


def test_nothing_is_aggregated_where_nobody_weighs_anything(contexts):
    strategy = flower.compressed(FedAvg)()
    spoil = lambda node, reply: weighed(0)(reply) or reply  # noqa: E731
    assert play(strategy, with_mod("identity"), contexts, model(), spoil=spoil) == (None, None)
    assert sorted(node for _, node, _ in strategy.ledger.refused) == NODES


def test_a_hostile_evaluation_is_refused_and_the_round_goes_on(contexts):
    strategy, replies = flower.compressed(FedAvg)(), []
    for message in strategy.configure_evaluate(1, record(model()), ConfigRecord(), Grid()):
        node = message.metadata.dst_node_id
        metrics = {"num-examples": EXAMPLES[node], "accuracy": node / 100} | ({"more": 1} if node == 22 else {})
        replies.append(Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=sent(message)))
    found = strategy.aggregate_evaluate(1, replies)
    assert found["accuracy"] == pytest.approx((10 * 0.11 + 60 * 0.33) / 70)
    assert [node for _, node, _ in strategy.ledger.refused] == [22]


def test_an_update_that_overflows_the_model_is_refused(contexts):
    strategy = flower.compressed(FedAvg)()
    big = model()
    big["layer.bias"] = np.full(6, 3e38, np.float32)
    spoil = spoiled(22, lambda reply: reply.content["arrays"].update(telegrad=nan_update()))
    play(strategy, with_mod("identity"), contexts, big, spoil=spoil)
    assert "NaN or infinite" in strategy.ledger.refused[0][2]


def test_damaged_telegrams_never_do_more_than_be_refused(contexts):
    """2,000 mutations of a valid telegram, checksums mended or not: a round of three clients goes on after each."""
    import zlib

    strategy, draw = flower.compressed(FedAvg)(), np.random.default_rng(1)
    (message, *_) = strategy.configure_train(1, record(model()), ConfigRecord(), Grid())
    reply = with_mod("mlmc(stopk(s=6))")(sent(message), context(11))
    whole = bytearray(reply.content["arrays"]["telegrad"].data)
    for number in range(2000):
        data = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            data[draw.integers(len(data))] = draw.integers(256)
        if number % 2:
            data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
        reply.content["arrays"].update(telegrad=Array("uint8", (len(data),), "telegrad", bytes(data)))
        before = len(strategy.ledger.refused)
        (*taken,) = strategy._taken(1, "train", [reply], strategy._decode)
        assert len(strategy.ledger.refused) == before + (not taken)
        if taken:  # the arrays have replaced the telegram
            assert all(np.isfinite(array.numpy()).all() for array in reply.content["arrays"].values())
            reply.content.array_records["arrays"] = record({"norm.steps": np.array(4, np.int64)})
    assert len(strategy.ledger.refused) > 900


def test_bad_arguments_say_what_is_wanted():
    with pytest.raises(tg.InputError, match=r"below flwr\.serverapp\.strategy\.FedAvg"):
        flower.compressed(FedAvg())
    with pytest.raises(tg.SpecError, match="topk"):
        flower.mod("topl(k=3)")


def test_changing_the_models_layout_is_an_error_of_the_client(contexts):
    def wrong(message, ctxt):
        reply = train(message, ctxt)
        reply.content["arrays"].pop("layer.bias")
        return reply

    (message, *_) = flower.compressed(FedAvg)().configure_train(1, record(model()), ConfigRecord(), Grid())
    with pytest.raises(tg.InputError, match=r"layer\.bias"):
        flower.mod("identity")(sent(message), contexts[11], wrong)
