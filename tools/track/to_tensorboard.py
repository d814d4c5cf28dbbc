"""Runs as TensorBoard's event files, in a folder for each stage and each fold.

The same snapshot always gives the same bytes, so a file is only ever continued. TensorBoard then reads the new events
of a file that it has open. A file whose beginning changed, because a fold was restarted, is replaced.
"""
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tagging.errors import TaggingError
from tagging.utils.files import atomic
from tools.track.snapshot import FoldCurves, Snapshot
from tools.track.tracker import Sent, require_package

FILE = "events.out.tfevents.tagging"        # TensorBoard finds files by the word tfevents


class TensorBoard:
    """Writes event files into a folder.

    Args:
        out: folder of the event files of one run.
        sent: what was written.
        offline: makes no difference.
    Raises:
        TaggingError: the package is not installed.
    """

    def __init__(self, out: Path, sent: Sent, offline: bool = False):
        require_package("tensorboard")
        self.out, self.sent = out, sent

    def send(self, snapshot: Snapshot) -> str:
        """Write what is new. Return a sentence about it, or "" if nothing is."""
        home = self.out / snapshot.stage
        written = [f"fold {fold}, {len(curves.rows)} epochs" for fold, curves in snapshot.curves.items()
                   if update_file(home / f"fold{fold}" / FILE, fold_events(snapshot, fold))]
        for path in home.glob(f"fold*/{FILE}"):
            if path.parent.name not in {f"fold{fold}" for fold in snapshot.curves}:
                path.unlink()       # the fold was deleted and has not started again
                written.append(f"{path.parent.name} removed")
        if self.sent.get(snapshot.stage) != {"mark": snapshot.mark()} or not (home / FILE).exists():
            if update_file(home / FILE, stage_events(snapshot)):
                written.append("settings and scores")
            self.sent.save(snapshot.stage, mark=snapshot.mark())
        return f"{snapshot.stage}: {'; '.join(written)}" if written else ""


def fold_events(snapshot: Snapshot, fold: int) -> bytes:
    """Return the event file of a fold: a point of each curve for each epoch, and the score at the last one."""
    curves = snapshot.curves[fold]
    content = io.BytesIO()
    for time, step, values in points(snapshot.started, curves):
        write_event(content, time, step, [scalar(name, value) for name, value in values.items()])
    return header(snapshot.started) + content.getvalue()


def points(started: float, curves: FoldCurves) -> Iterator[tuple[float, int, dict[str, float]]]:
    """Yield time, epoch and values of each epoch. The clock times are those of the training's own seconds."""
    time = started
    for row in curves.rows:
        time += row.get("seconds", 1.0)
        yield time, int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"}
    if curves.score is not None and curves.rows:
        yield time, int(curves.rows[-1]["epoch"]), {"fold_lwlrap": curves.score}


def stage_events(snapshot: Snapshot) -> bytes:
    """Return the event file of a stage: settings, fold scores, pictures and model card."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from torch.utils.tensorboard.summary import hparams

    content, time = io.BytesIO(), snapshot.started

    def text(name: str, markdown: str) -> object:
        value = Summary.Value(tag=name, metadata=create_summary_metadata(name, ""))
        value.tensor.dtype = 7      # DT_STRING
        value.tensor.string_val.append(markdown.encode("utf-8", "backslashreplace"))
        return value

    for summary in hparams({name: plain(value) for name, value in snapshot.settings.items()}, snapshot.scores):
        write_event(content, time, 0, list(summary.value))
    rows = "\n".join(f"| {cell(name)} | {cell(value)} |" for name, value in snapshot.settings.items())
    values = [text("settings", f"| setting | value |\n|---|---|\n{rows}")]
    if card := snapshot.card():
        values.append(text("model_card", card))
    write_event(content, time, 0, values)
    for fold, score in snapshot.fold_scores.items():
        write_event(content, time, fold, [scalar("lwlrap_by_fold", score)])
    for name, score in snapshot.scores.items():
        write_event(content, time, 0, [scalar(f"lwlrap/{name}", score)])
    for name, picture in snapshot.pictures().items():
        width, height = struct.unpack(">II", picture[16:24])        # of the PNG's header
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=picture)
        write_event(content, time, 0, [Summary.Value(tag=name, image=image)])
    return header(time) + content.getvalue()


def cell(value: object) -> str:
    """Return a value as text for a cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def plain(value: object) -> object:
    """Return a number, truth value or text as it is, and anything else as text."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def scalar(name: str, value: float) -> object:
    from tensorboard.compat.proto.summary_pb2 import Summary
    return Summary.Value(tag=name, simple_value=value)


def header(time: float) -> bytes:
    """Return the first record of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    content = io.BytesIO()
    write_record(content, Event(wall_time=time, file_version="brain.Event:2"))
    return content.getvalue()


def write_event(file: io.BytesIO, time: float, step: int, values: list) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    write_record(file, Event(wall_time=time, step=step, summary=Summary(value=values)))


def write_record(file: io.BytesIO, event: object) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter
    RecordWriter(file).write(event.SerializeToString(deterministic=True))  # type: ignore[attr-defined]


def update_file(path: Path, content: bytes) -> bool:
    """Append what is new, or replace a file that begins differently. Return whether anything changed.

    Raises:
        TaggingError: the file cannot be written.
    """
    try:
        written = path.read_bytes() if path.exists() else b""
        if written == content:
            return False
        if written and content.startswith(written):     # also after a kill in the middle of a record
            with open(path, "ab") as file:
                file.write(content[len(written):])
                file.flush()
                os.fsync(file.fileno())
            return True
    except OSError as error:
        raise TaggingError(f"{path} could not be written: {error.strerror or error}. Check the free space and the "
                           "permissions of the folder.") from error
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return True
