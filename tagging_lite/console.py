"""The standard streams of a program: closed ones, full ones, and characters that they cannot encode. JSON."""
import codecs
import csv
import json
import os
import sys
from contextlib import suppress
from typing import Any

ERRORS = "tagging_lite.console"


def prepare_streams() -> None:
    """Make the standard streams usable. Programs call this first.

    A closed stream (`>&-`, cron, pythonw) is None in Python. Output to it is then dropped. A character that stdout
    cannot encode is written as an escape, and a file name that is not UTF-8 with the bytes that it has on the disk.
    """
    for number in range(3):     # otherwise the next open file gets the number, and libraries would write into it
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))    # noqa: SIM115    it stays open
    codecs.register_error(ERRORS, escape)
    if hasattr(sys.stdout, "reconfigure"):      # a file or a terminal, and not a replacement of a test
        sys.stdout.reconfigure(errors=ERRORS)


def escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle a character that cannot be encoded, as `codecs.register_error` requires."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def flush_stdout() -> None:
    """Write what is buffered. If stdout cannot take it, drop it, because Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_text(content: object, encoding: str = "utf-8", indent: int | None = None) -> str:
    """Return valid JSON. Characters are escaped only if there is one that `encoding` does not have."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(content, indent=indent)
    return text


def csv_writer(file: Any) -> Any:
    """Return a `csv.writer` whose lines end with a line feed. It also quotes a name with a carriage return.

    Before Python 3.13, `csv` quotes only the line breaks of its own line ends, and a reader would end the row there.
    """
    class Lines:
        def write(self, row: str) -> None:
            file.write(row.removesuffix("\r\n") + "\n")

    return csv.writer(Lines(), lineterminator="\r\n")
