"""README and docs must stay true: links, commands, options, figures, the tree, the way of a clip, and named tests."""
import ast
import csv
import re
import subprocess
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
OURS = ["README.md", "CONTRIBUTING.md", "data/README.md", "models/README.md", "submissions/README.md",
        *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
ALL = [*OURS, "CHANGELOG.md", "LOG.md"]
SHARED = ("tagging/recipe.py", "tagging/options.py", "tagging/cli.py")     # dataclasses of options


def read(document: str) -> str:
    return (ROOT / document).read_text()


# The README's size, and its tree.

def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("document", ALL)
def test_no_line_is_too_long_to_review(document):
    assert [line for line in read(document).splitlines() if len(line) > 400] == []


def tree() -> set[str]:
    """The paths in the README's tree. Folders end with a slash."""
    block = README.split("## The tree")[1].split("```")[1].strip("\n")
    paths, folder = set(), ""
    for line in block.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith("  "):
            folder = names[0] if names[0].endswith("/") else ""
        paths |= {folder + name for name in names} if line.startswith("  ") else set(names)
    return paths


def test_the_tree_is_that_of_the_repository():
    """At the level of packages, their direct modules in tagging/, and top-level files and folders."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.splitlines()
    files = [path for path in map(Path, listed) if (ROOT / path).exists() and not path.parts[0].startswith(".")]
    present = {path.parts[0] + "/" * (len(path.parts) > 1) for path in files}
    present |= {f"{path.parent}/" for path in files if path.name == "__init__.py"}
    present |= {str(path) for path in files if str(path.parent) == "tagging" and path.name != "__init__.py"}
    assert tree() == present


# Links, files and modules.

def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", ALL)
def test_every_link_and_picture_exists(document):
    text = read(document)
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for name in re.findall(r"\]\[([^\]]+)\]", prose):
        assert name in defined, name
    for link in [*re.findall(r"\]\(([^)\s]+)\)", prose), *re.findall(r'src="([^"]+)"', prose), *defined.values()]:
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("document", OURS)
def test_every_file_and_module_that_is_named_exists(document):
    text = read(document)
    for path in re.findall(r"`((?:tagging|tagging_lite|tools|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or "NAME" in path, path
    for name in re.findall(r"-m ((?:tools|tagging_lite)[\w.]*)", text):
        assert module(name).is_file() or "NAME" in name, name
    for name in re.findall(r"`((?:tagging|tagging_lite)(?:\.\w+)+)", text):
        parts = name.split(".")
        source = next(path for count in range(len(parts), 0, -1) if (path := module(".".join(parts[:count]))).is_file())
        missing = {*parts[len(source.relative_to(ROOT).with_suffix("").parts):]} - definitions(source)
        assert not missing, f"{name}: {missing}"


def module(name: str) -> Path:
    path = ROOT / name.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__main__.py", path / "__init__.py")
                 if each.is_file()), path)


@cache
def definitions(source: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.ClassDef | ast.FunctionDef)} | {source.stem, "__main__"}


def test_every_hop_of_the_way_of_a_clip_exists():
    hops = re.findall(r"^\| (\d+) \| `([\w./]+)` \| (.+?) \|", read("docs/architecture.md"), re.MULTILINE)
    assert [int(number) for number, _, _ in hops] == list(range(1, len(hops) + 1)) and 8 < len(hops) <= 12
    for _, path, functions in hops:
        assert set(re.findall(r"`(\w+)`", functions)) <= definitions(ROOT / path), path


def test_every_test_that_a_promise_names_exists():
    names = set(re.findall(r"`(test_[\w.]+)`", read("docs/reliability.md")))
    defined = set().union(*(definitions(path) | {path.name} for path in (ROOT / "tests").glob("test_*.py")))
    assert len(names) > 20
    assert names <= defined, names - defined


# Options. They are read from the source, because importing all tools takes ten times as long as all tests of this file.

@cache
def dataclasses_of(path: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.ClassDef)}


@cache
def options_of(path: str) -> set[str]:
    """The options of a script or tool: its dataclasses, those that it imports, and the calls of argparse."""
    source = (ROOT / path).read_text()
    classes = {name: node for each in (*SHARED, path) for name, node in dataclasses_of(each).items()}
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    options = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source))
    if "import add_arguments" in source:
        options |= options_of("tagging_lite/command.py")
    kinds = {*dataclasses_of(path)} | used & {*classes}
    return options.union({"--help"}, *(fields(kind, classes, "") for kind in kinds))


def fields(name: str, classes: dict[str, ast.ClassDef], prefix: str) -> set[str]:
    """The options of a dataclass, with those of its groups and of the classes it inherits from."""
    found = set()
    for base in classes[name].bases:
        found |= fields(base.id, classes, prefix) if isinstance(base, ast.Name) and base.id in classes else set()
    for node in classes[name].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        kind, field = ast.unparse(node.annotation), node.target.id.replace("_", "-")
        groups = {each.id for each in ast.walk(node.annotation) if isinstance(each, ast.Name)} & {*classes}
        for group in groups:
            found |= fields(group, classes, prefix if "Flat" in kind else f"{prefix}{field}.")
        renamed = re.search(r"\bname='([\w-]+)'", kind)
        if not groups and "Positional" not in kind:
            found |= {f"--{no}{prefix}{renamed[1] if renamed else field}" for no in ("", "no-")}
    return found


def commands(text: str) -> list[tuple[str, set[str]]]:
    """The file of each script and tool in the code blocks, with the options that follow it."""
    found = []
    for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            match = re.search(r"(?:-m ((?:tools|tagging_lite)[\w.]*)|((?:train_\w+|predict|lwlrap)\.py))(.*)", line)
            if match and match[1] != "tools.NAME":
                path = module(match[1]).relative_to(ROOT) if match[1] else match[2]
                found.append((str(path), words_of(match[3].split("  #")[0])))
    return found


def words_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text))


@pytest.mark.parametrize("document", OURS)
def test_every_option_exists(document):
    text = read(document)
    for path, options in commands(text):
        assert options <= options_of(path), f"{path}: {options - options_of(path)}"
    scripts = ["train_noisy.py", "train_curated.py", "predict.py", "lwlrap.py",
               *(str(path.relative_to(ROOT)) for folder in ("tools", "tagging_lite")
                 for path in (ROOT / folder).rglob("*.py"))]
    known = set().union(*map(options_of, scripts)) | {"--accumulate"}       # an old name
    inline = [span for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
              if span.split()[0] not in ("torchrun", "sbatch", "curl", "git", "pip", "pytest")]
    foreign = {"--nnodes", "--array"}                                      # torchrun's and sbatch's
    assert words_of(" ".join(inline)) <= known | foreign, words_of(" ".join(inline)) - known - foreign


def test_the_commands_of_the_readme_are_found():
    assert {path for path, _ in commands(README)} >= {"train_noisy.py", "tools/tag.py", "tools/make_competition.py"}
    assert ("predict.py", {"--data", "--run", "--tta"}) in commands(README)


# Figures: each number of a marked table must be in results.csv, except numbers that link to their source.

TABLE = re.compile(r"<!-- results: (.+?) -->\n((?:\|.*\n)+)")


def results() -> list[dict[str, str]]:
    with open(ROOT / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(cell: str) -> list[str]:
    cell = re.sub(r"\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|`[^`]*`", "", cell)
    return [number.replace(",", "") for number in re.findall(
        r"(?<![\w.-])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\w%])", cell)]


def rounds_to(value: str, number: str) -> bool:
    """Whether a value gives the number when it is rounded to its digits."""
    shown = Decimal(number)
    step = Decimal(1).scaleb(shown.as_tuple().exponent)
    return value != "" and any(Decimal(value).quantize(step, rounding=way) == shown
                               for way in (ROUND_HALF_UP, ROUND_HALF_EVEN))


def is_result(cell: str, rows: list[dict[str, str]]) -> bool:
    """Whether each number of a cell is in the rows. With a spread, `0.871 (0.869 to 0.873)`, or the runs,
    `0.871 (0.872, 0.873, 0.869)`, a single row must have the mean, the least and the greatest."""
    first, *others = numbers(cell) or [""]
    if others and re.match(r"\S+ \(", cell):
        wanted = first, min(others, key=Decimal), max(others, key=Decimal)
        return any(all(map(rounds_to, (row["value"], row["least"], row["greatest"]), wanted)) for row in rows)
    return all(any(rounds_to(row[column], number) for row in rows for column in ("value", "least", "greatest"))
               for number in numbers(cell))


@pytest.mark.parametrize("document", ["README.md", "docs/recipes.md", "docs/benchmark.md", "docs/deploy.md"])
def test_every_figure_is_a_result(document):
    rows, checked = results(), 0
    for experiments, table in TABLE.findall(read(document)):
        chosen = [row for row in rows if row["experiment"] in experiments.split()]
        assert {row["experiment"] for row in chosen} == set(experiments.split())
        header, _, *lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table.splitlines()]
        metrics = [[row for row in chosen if row["metric"] in title] for title in header]
        assert any(metrics), f"no column of {header} is a metric of {experiments}"
        for cells in lines:
            recipes = set(re.findall(r"`([\w-]+)`", " ".join(cells[:2]))) & {row["recipe"] for row in chosen}
            for cell, candidates in zip(cells, metrics):
                if candidates and numbers(cell):
                    candidates = [row for row in candidates if not recipes or row["recipe"] in recipes]
                    assert is_result(cell, candidates), f"{cell} in {cells}"
                    checked += 1
    assert checked > 2


def test_a_number_is_compared_in_its_digits():
    assert rounds_to("0.8505", "0.851") and rounds_to("0.8505", "0.850") and rounds_to("2300", "2300")
    assert not rounds_to("0.8505", "0.8504") and not rounds_to("", "0")
    assert numbers("**0.875** (`--tta 4`) [0.7](x) [0.8][y] 938 of 1,000") == ["0.875", "938", "1000"]


def test_a_mean_belongs_to_its_spread():
    rows = [{"value": "0.8713", "least": "0.8694", "greatest": "0.8728"},
            {"value": "0.8716", "least": "", "greatest": ""}]
    assert is_result("0.871 (0.869 to 0.873)", rows) and is_result("**0.871** (0.872, 0.873, 0.869)", rows)
    assert is_result("0.872", rows) and is_result("0.869, 0.873", rows)
    assert not is_result("0.872 (0.869 to 0.873)", rows) and not is_result("0.875", rows)
