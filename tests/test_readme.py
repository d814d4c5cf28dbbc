"""The README must stay true."""
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def tree() -> list[str]:
    """The paths that the README's tree names."""
    block = README.split("## The tree")[1].split("```")[1].strip("\n")
    paths, folder = [], ""
    for line in block.splitlines():
        names = re.match(r"\s*((?:\S+ )+)", line)[1].split()
        if not line.startswith("  "):
            folder = names[0] if names[0].endswith("/") else ""
        paths += [name if not line.startswith("  ") else folder + name for name in names]
    return paths


def test_every_path_of_the_tree_exists():
    assert len(tree()) > 20
    for path in tree():
        assert (ROOT / path).exists(), path


def test_every_module_and_script_is_in_the_tree():
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = {path for path in files.split() if not path.startswith("tests/") and not path.endswith("__init__.py")}
    assert modules and modules <= set(tree())


@pytest.mark.parametrize("document", [
    "README.md", "LOG.md", "data/README.md", "models/README.md", "docs/reliability.md"])
def test_every_link_within_the_repository_leads_somewhere(document):
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / Path(document).parent / link).exists(), link


def test_every_option_that_the_readme_names_exists():
    from predict import Predict
    from tagging.cli import Common, Train, TrainCurated
    from tagging.recipe import Recipe, Schedule
    from tools.relabel import Relabel
    # Lines of other programs, whose options are theirs; what follows the script's name is ours.
    ours = re.sub(r"^(torchrun|sbatch) .*?(?=train_noisy)", "", README, flags=re.MULTILINE)
    known = {"--help", "--clips", "--data-binary"}      # the last one is curl's
    for script in (ROOT / "lwlrap.py", *(ROOT / "tools").rglob("*.py"), *(ROOT / "tagging_lite").glob("*.py")):
        known |= set(re.findall(r'add_argument\("(--[\w-]+)"', script.read_text()))
    for kind in (Common, Train, TrainCurated, Predict, Relabel, Recipe):
        known |= {"--" + name.replace("_", "-") for name in kind.__dataclass_fields__}
    known |= {f"--{stage}.{name}" for stage in ("noisy", "curated") for name in Schedule.__dataclass_fields__}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", ours)) <= known


def test_every_test_that_a_promise_names_exists():
    promises = (ROOT / "docs" / "reliability.md").read_text()
    names = set(re.findall(r"`(test_\w+)(?:\.\.\.)?`", promises))
    defined = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(names) > 10
    for name in names:
        assert f"def {name}" in defined, name
