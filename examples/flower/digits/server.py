"""The server. Against a plain Flower app one line differs: compressed(FedAvg)."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import telegrad
from digits.task import accuracy, data, net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = telegrad.flower.compressed(FedAvg)(fraction_train=context.run_config["fraction-train"])
    test = data()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = net()
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, *test)})

    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(net().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=evaluate,
    )
    final = max(result.evaluate_metrics_serverapp)
    print(f"accuracy {result.evaluate_metrics_serverapp[final]['accuracy']:.3f}")
    print(f"bits up {strategy.ledger.total('up')}, down {strategy.ledger.total('down')}")
    counted = strategy.ledger.by_flower  # metrics and names of records included
    print(f"bytes by Flower's own count up {counted['up']}, down {counted['down']}")
    print(f"refused {len(strategy.ledger.refused)}")
