"""Changes of the graph of exported networks: clips are trimmed, cut into windows and pooled; weights in half the space.
"""
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from tagging_lite.audio import SILENCE, RemoveSilence
from tagging_lite.tagger import ModelInfo

SMALL_WEIGHT = 100_000  # numbers of a weight that --fp16 leaves as it is

class ClipGraph:
    """Turns a graph for windows into one for whole clips, with the same windows as `Tagger.tag_file`.

    The clips of a batch have different numbers of windows. All windows are computed in one batch, and their results are
    sorted into a grid (batch, most windows of a clip).

    Args:
        graph: windows (windows, samples) -> logits (windows, models, classes), features (windows, models, features).
    """

    def __init__(self, graph: ir.Graph, info: ModelInfo):
        self.graph, self.info, self.tape = graph, info, Tape()
        self.waves = ir.Value(name="waves", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", "samples"]))
        self.trim_db = ir.Value(name="trim_db", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]),
                                const_value=ir.tensor(np.float32(info.trim_db), name="trim_db"))

    def op(self, kind: str, *inputs: Any, **attributes: Any) -> ir.Value:
        """Add a node. An input that is not a value of the graph, such as an int or an array, becomes a constant."""
        values = [value if isinstance(value, ir.Value)
                  else self.tape.op("Constant", [], {"value": ir.tensor(np.asarray(value))}) for value in inputs]
        return self.tape.op(kind, values, attributes)

    def wrap(self) -> None:
        """Add the nodes. The graph then has the inputs `waves` and `trim_db`, which is optional, and three outputs."""
        graph, (window_logits, window_features) = self.graph, self.graph.outputs
        self.samples = self.op("Squeeze", self.op("Shape", self.waves, start=1, end=2))
        samples = self.op("Round", self.op("Mul", self.op("Clip", self.waves, np.float32(-1), np.float32(1 - 2 ** -15)),
                                           np.float32(32768)))                      # (batch, samples), as 16 bits have
        self.padded = self.op("Pad", samples, np.array([0, self.info.window] * 2))
        start, stop, silent = self.find_bounds()
        windows = self.cut_windows(start, stop)
        nodes = list(self.tape.nodes)
        ir.convenience.replace_all_uses_with(graph.inputs[0], windows)
        graph.insert_before(graph[0], nodes)
        logits, features = self.pool(window_logits, self.info.pooling), self.pool(window_features, "mean")
        probabilities = self.op("ReduceMean", self.op("Sigmoid", logits), np.array([1]), keepdims=0)    # over models
        blank = self.op("Unsqueeze", silent, np.array([1]))                                             # (batch, 1)
        blanks = self.op("Unsqueeze", silent, np.array([1, 2]))                                         # (batch, 1, 1)
        zero = np.float32(0)
        outputs = {"probabilities": self.op("Where", blank, zero, probabilities),
                   "logits": self.op("Where", blanks, np.float32(-np.inf), logits),
                   "features": self.op("Where", blanks, zero, features)}
        graph.extend(list(self.tape.nodes)[len(nodes):])
        assert window_logits.shape and window_features.shape
        shapes = [window_logits.shape[2:], window_logits.shape[1:], window_features.shape[1:]]
        for (name, value), shape in zip(outputs.items(), shapes):
            value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", *shape])
        graph.inputs[:] = [self.waves, self.trim_db]
        graph.outputs[:] = list(outputs.values())
        graph.register_initializer(self.trim_db)

    def find_bounds(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Find the silence at both ends, as `RemoveSilence.bounds` does.

        Returns:
            first sample to keep, and the one after the last: (batch,) int64.
            whether a clip is empty or constant: (batch,) bool. It is False if `trim_db` is negative.
        """
        trim, op = RemoveSilence(), self.op
        hop, half = int(trim.pad_ms / 1000 * self.info.sample_rate), trim.frame_length // 2
        period = op("Max", op("Mul", op("Sub", self.samples, 1), 2), 1)             # of a reflection at both edges
        place = op("Mod", op("Range", -half, op("Add", self.samples, half), 1), period)
        mirrored = op("Min", place, op("Sub", period, place))                       # (samples + frame_length,)
        around = op("Cast", op("Gather", self.padded, op("Add", mirrored, self.info.window), axis=1),
                    to=ir.DataType.INT64)
        sums = op("Pad", op("CumSum", op("Mul", around, around), 1), np.array([0, 1, 0, 0]))
        first = op("Range", 0, op("Add", self.samples, 1), hop)                     # (frames,)
        energy = op("Sub", op("Gather", sums, op("Add", first, trim.frame_length), axis=1),
                    op("Gather", sums, first, axis=1))                              # (batch, frames) int64, exact
        energy = op("Max", op("Cast", energy, to=ir.DataType.DOUBLE), SILENCE * trim.frame_length)
        ratio = op("Pow", 10.0, op("Div", op("Cast", self.trim_db, to=ir.DataType.DOUBLE), 10.0))
        loud = op("Cast", op("Greater", op("Mul", energy, ratio), op("ReduceMax", energy, np.array([1]))),
                  to=ir.DataType.INT32)                                             # (batch, frames)
        start = op("Max", op("Mul", op("Sub", op("ArgMax", loud, axis=1, keepdims=0), 1), hop), 0)
        last = op("ArgMax", loud, axis=1, keepdims=0, select_last_index=1)
        stop = op("Min", op("Mul", op("Add", last, 2), hop), self.samples)
        trimmed = op("Greater", self.trim_db, np.float32(0))
        constant = op("Equal", op("ReduceMax", around, np.array([1]), keepdims=0),
                      op("ReduceMin", around, np.array([1]), keepdims=0))
        return (op("Where", trimmed, start, 0), op("Where", trimmed, stop, self.samples),
                op("And", constant, op("GreaterOrEqual", self.trim_db, np.float32(0))))

    def cut_windows(self, start: ir.Value, stop: ir.Value) -> ir.Value:
        """Cut the windows of `place_windows` from the trimmed clips: (windows, samples) in [-1, 1)."""
        op, size = self.op, self.info.window
        step = max(1, int(size * (1 - self.info.overlap)))
        room = op("Sub", op("Sub", stop, start), size)                              # (batch,)
        self.counts = op("Add", op("Div", op("Add", op("Max", room, 0), step - 1), step), 1)
        self.most = op("ReduceMax", self.counts, np.array([0]))                     # (1,)
        numbers = op("Range", 0, op("Squeeze", self.most), 1)
        column = op("Unsqueeze", self.counts, np.array([1]))                        # (batch, 1)
        self.places = op("Transpose", op("NonZero", op("Less", numbers, column)), perm=[1, 0])      # (windows, 2)
        row, number = (op("Gather", self.places, place, axis=1) for place in (0, 1))                # (windows,)
        last = op("Sub", op("Gather", self.counts, row), 1)
        share = op("Where", op("Greater", last, 0),
                   op("Div", *(op("Cast", value, to=ir.DataType.DOUBLE) for value in (number, op("Max", last, 1)))),
                   0.5)
        offset = op("Round", op("Mul", share, op("Cast", op("Gather", room, row), to=ir.DataType.DOUBLE)))
        begin, end, row = (op("Unsqueeze", value, np.array([1]))
                           for value in (op("Gather", start, row), op("Gather", stop, row), row))   # (windows, 1)
        first = op("Add", begin, op("Unsqueeze", op("Cast", offset, to=ir.DataType.INT64), np.array([1])))
        sample = op("Add", first, np.arange(size))                                  # (windows, size)
        inside = op("And", op("GreaterOrEqual", sample, begin), op("Less", sample, end))
        width = op("Add", self.samples, 2 * size)
        flat = op("Add", op("Add", op("Mul", row, width), size), sample)
        found = op("Gather", op("Reshape", self.padded, np.array([-1])), flat)
        return op("Where", inside, op("Mul", found, np.float32(1 / 32768)), np.float32(0))

    def pool(self, values: ir.Value, pooling: str) -> ir.Value:
        """(windows, models, values) -> (batch, models, values), the mean or maximum over the windows of each clip."""
        op, maximum = self.op, pooling == "maximum"
        shape = op("Concat", op("Shape", self.counts), self.most, op("Shape", values, start=1), axis=0)
        grid = op("Expand", np.float32(-np.inf if maximum else 0), shape)
        grid = op("ScatterND", grid, self.places, values)                           # (batch, most, models, values)
        if maximum:
            return op("ReduceMax", grid, np.array([1]), keepdims=0)
        count = op("Cast", op("Unsqueeze", self.counts, np.array([1, 2])), to=ir.DataType.FLOAT)
        return op("Div", op("ReduceSum", grid, np.array([1]), keepdims=0), count)


def halve_weights(graph: ir.Graph) -> None:
    """Store the large weights of the networks as float16. onnxruntime converts them once, when it loads them.

    The small ones, among them those of the first layers, have nearly all of the effect on the tags, but few bytes.
    """
    for weight in list(graph.initializers.values()):
        if (weight.const_value is None or weight.dtype != ir.DataType.FLOAT or weight.const_value.size <= SMALL_WEIGHT
                or weight.name in ("log_mel.kernels", "log_mel.bank")):     # the front end
            continue
        with np.errstate(over="ignore"):        # the comparison with torch finds infinite weights
            values = weight.const_value.numpy().astype(np.float16)
        node = ir.node("Cast", [], {"to": ir.DataType.FLOAT})
        weight.replace_all_uses_with(node.outputs[0])
        weight.const_value, weight.type = ir.tensor(values, name=weight.name), ir.TensorType(ir.DataType.FLOAT16)
        node.resize_inputs(1)
        node.replace_input_with(0, weight)
        graph.insert_before(graph[0], node)


def replace_mish(graph: ir.Graph) -> None:
    """Compute Mish as x * n / (n + 2) with n = e^x * (e^x + 2).

    onnxruntime computes its own Mish with softplus, one number at a time, in a third of the time of the network.
    """
    for node in [node for node in graph if node.op_type == "Mish"]:
        tape, values = Tape(), node.inputs[0]
        twenty, two = (tape.op("Constant", [], {"value": ir.tensor(np.float32(number))}) for number in (20, 2))
        power = tape.op("Exp", [tape.op("Min", [values, twenty])])      # from 20 on, Mish is x in float32
        product = tape.op("Mul", [power, tape.op("Add", [power, two])])
        share = tape.op("Div", [product, tape.op("Add", [product, two])])
        mish = tape.op("Mul", [values, share])
        graph.insert_before(node, tape.nodes)
        ir.convenience.replace_all_uses_with(node.outputs[0], mish)
        graph.remove(node, safe=True)
