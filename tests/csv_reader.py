"""A second reading of csv files, to compare the library's with."""
import re


def decoded(content):
    """The text in the encoding that the first bytes tell, or else in UTF-8 or Windows-1252."""
    marks = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
    for mark, encoding in marks.items():
        if content.startswith(mark):
            return content.removeprefix(mark).decode(encoding)
    if len(content) > 1 and content[:2].count(0) == 1:
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252")


def parse(text, separator=","):
    """An independent reading of a csv: rows of fields, blank lines left out."""
    rows, row, field, quoted, place = [], [], "", False, 0
    while place < len(text):
        char = text[place]
        place += 1
        if quoted:
            if char != '"':
                field += char
            elif text[place:place + 1] == '"':
                field, place = field + '"', place + 1
            else:
                quoted = False
        elif char == '"' and not field:
            quoted = True
        elif char == separator:
            row, field = [*row, field], ""
        elif char in "\r\n":
            rows, row, field = [*rows, [*row, field]], [], ""
        else:
            field += char
    return [row for row in [*rows, [*row, field]] if row != [""]]


def parsed(content):
    """Header, stripped, and the rows that hold anything, without columns that have no name and no content."""
    text = decoded(content)
    told = re.match(r'"?sep=([^\w\s"]|\t)[,;\t"]*(\r\n|\r|\n|$)', text, re.IGNORECASE)
    for separator in told[1] if told else ",;\t|":
        rows = parse(text[told.end() if told else 0:], separator)
        header, *rows = [row for row in rows if "".join(row).strip()]
        header = ["" if re.fullmatch(r"Unnamed: \d+(\.\d+)*", name.strip()) else name.strip() for name in header]
        if "fname" in header:
            break
    width = len(header)
    assert not any("".join(row[width:]).strip() for row in rows), "a field was lost"
    rows = [(row + [""] * width)[:width] for row in rows]
    kept, leading = [], True
    for place, name in enumerate(header):
        leading = leading and not name
        column = [row[place].strip() for row in rows]
        numbers = leading and all(re.fullmatch("[0-9]{1,18}", field) for field in column)
        if name or ("".join(column) and not (numbers and len(set(map(int, column))) == len(column))):
            kept.append(place)
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]
