"""Log output of the library: lines for people on stdout, or JSON lines for the process that started this one.

Library modules call `logging`. Scripts choose the form with `show_logs`.
"""
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from tagging.errors import visible

EVENTS = "TAGGING_EVENTS"       # environment variable: write events as JSON lines to stdout, and nothing else


class PeopleHandler(logging.Handler):
    """Prints each message as a line on stdout. sys.stdout is looked up at each line, because it can be redirected."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(self.format(record)), flush=True)


class EventHandler(logging.Handler):
    """Writes each record as a JSON object on a line: its message, and the fields that `extra={"event": ...}` names."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        write_event(self.stream, message=self.format(record), **getattr(record, "event", {}))


def write_event(stream: TextIO, **fields: object) -> None:
    print(json.dumps(fields), file=stream, flush=True)


@contextmanager
def show_logs() -> Iterator[TextIO | None]:
    """Show what the library logs during the block.

    Yields:
        the stream of JSON lines if the environment asks for events, otherwise None.
    """
    logger = logging.getLogger("tagging")
    events = sys.stdout if os.environ.get(EVENTS) else None
    handler: logging.Handler = EventHandler(events) if events else PeopleHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        if events:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield events
        else:
            yield None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
