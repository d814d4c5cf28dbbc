"""The numbers of csv files, in the notation of scripts and of spreadsheets."""
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.csv_files import say
from tagging.errors import TaggingError

FLAGS = {"true": "1", "false": "0"}
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")           # 1,234 and 1.234 can be either


class NumberReader:
    """Reads the numbers of a csv file row by row, all in one notation.

    Decimal commas are read if no comma separates the fields and no number has a point. If all commas or points could
    also separate thousands, the file is refused. True and False are read in columns that contain nothing else.
    """

    def __init__(self, columns: Sequence[str], separator: str):
        self.columns, self.separator = columns, separator
        self.comma = self.point = ""                # where the first number with a comma and with a point is
        self.decimal = False                        # whether a comma or point certainly separates decimals
        self.flags: set[int] | None = None          # the columns of True and False

    def read(self, fields: list[str], where: str) -> np.ndarray:
        """Return (columns,) float64.

        Raises:
            TaggingError: a field is no finite number, or is in another notation than the fields before.
        """
        text = "".join(fields)
        words = [field.strip().lower() for field in fields] if re.search("[tTfF]", text) else []
        flags = {place for place, word in enumerate(words) if word in FLAGS}
        if self.flags is None:
            self.flags = flags
        if flags != self.flags:
            place = min(flags ^ self.flags)
            raise TaggingError(f"{where}, column {self.columns[place]}: '{fields[place]}' in a column that has both "
                               "numbers and True or False. Write numbers only.")
        for place in flags:
            fields[place] = FLAGS[words[place]]
        if not self.decimal and self.separator != "," and ("," in text or "." in text):
            self.decimal = any(("," in field or "." in field) and not THOUSANDS.fullmatch(field.strip())
                               for field in fields)
        if self.separator != "," and "," in text:
            self.comma = self.comma or where
            found = {field for field in fields if DECIMAL_COMMA.fullmatch(field.strip())}
            fields = [field.replace(",", ".") if field in found else field for field in fields]
        if "." in text:
            self.point = self.point or where
        if self.comma and self.point:
            raise TaggingError(f"{self.comma} has a number with a comma, and {self.point} has one with a point. Write "
                               "all decimals with a point, and no separators of thousands.")
        return read_numbers(fields, where, self.columns)

    def finish(self, path: Path) -> None:
        """Log the notation.

        Raises:
            TaggingError: the commas or points could separate decimals or thousands.
        """
        if self.separator != "," and (self.comma or self.point) and not self.decimal:
            raise TaggingError(f"{self.comma or self.point}: the {'commas' if self.comma else 'points'} could separate "
                               "decimals or thousands. Remove separators of thousands, or write decimals with four "
                               "digits.")
        if self.comma:
            say(f"{path}: the numbers have decimal commas.")
        if self.flags:
            say(f"{path}: True and False are read as 1 and 0.")


def read_numbers(fields: Sequence[str], where: str, columns: Sequence[str]) -> np.ndarray:
    """Return (columns,) float64 of one row, with decimal points.

    Raises:
        TaggingError: a field is no finite number.
    """
    try:
        numbers = np.array(fields, np.float64)
        if "_" in (text := "".join(fields)) or not text.isascii():      # numpy accepts 1_000 and digits of all scripts
            raise ValueError
    except ValueError:
        numbers = pd.to_numeric(pd.Series(fields), errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        field = fields[wrong[0]]
        remedy = ("Write decimals with a point, and no separators of thousands."
                  if re.fullmatch(r"[-+0-9.,]+", field) else "Correct the field.")
        raise TaggingError(f"{where}, column {columns[wrong[0]]}: '{field}' is not a finite number. {remedy}")
    return numbers
