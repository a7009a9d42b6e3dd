"""The client. Against a plain Flower app one argument differs: mods."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import telegrad
from digits.task import accuracy, data, net, train

app = ClientApp(mods=[telegrad.flower.mod("auto(bits=1)")])


def share(context: Context):
    return data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def on_train(message: Message, context: Context) -> Message:
    model, (images, labels) = net(), share(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train(model, images, labels, context.run_config["local-epochs"], context.run_config["learning-rate"])
    metrics = MetricRecord({"num-examples": len(labels)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def on_evaluate(message: Message, context: Context) -> Message:
    model, (images, labels) = net(), share(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    metrics = MetricRecord({"num-examples": len(labels), "accuracy": accuracy(model, images, labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
