"""Flower's own federated averaging, timed by itself in the virtual environment it was installed in; nothing of ours.

    python flower_rival.py UPDATE.npz UPDATES

Every line on the standard input asks for a round: that many updates, from the bytes of Flower's message on the wire to
the averaged arrays. A round is answered with a line of JSON, CPU milliseconds of an update:

    {"parse": messages from their bytes, "aggregate": FedAvg.aggregate_train, "off": largest error of the average}
"""

import json
import logging
import sys
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as WireMessage
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as Flower's own runtime sets them
    arrays, updates = dict(np.load(sys.argv[1])), int(sys.argv[2])
    wires = [wire(arrays, samples) for samples in (100, 300)]
    strategy = FedAvg()
    for _ in sys.stdin:
        begin_ns = time.process_time_ns()
        replies = [message_from_proto(WireMessage.FromString(wires[index % 2])) for index in range(updates)]
        parsed_ns = time.process_time_ns()
        averaged, _ = strategy.aggregate_train(1, replies)
        end_ns = time.process_time_ns()
        off = max(float(np.abs(averaged[name].numpy() - array).max()) for name, array in arrays.items())
        del replies, averaged
        times = {"parse": parsed_ns - begin_ns, "aggregate": end_ns - parsed_ns}
        print(json.dumps({name: ns / updates / 1e6 for name, ns in times.items()} | {"off": off}), flush=True)


def wire(arrays: dict[str, np.ndarray], samples: int) -> bytes:
    """A device's reply as it travels."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "metrics": MetricRecord({"num-examples": samples}),
        }
    )
    message = Message(content=content, dst_node_id=1, message_type=MessageType.TRAIN)
    return message_to_proto(message).SerializeToString()


if __name__ == "__main__":
    main()
