"""The command lines: the help of every script and tool, and the answers to old and misspelt options."""
import re
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from conftest import ROOT, Workshop

from tagging.cli import TrainCurated, TrainNoisy, parse_training
from tagging.recipe import NAMED_RECIPES

SCRIPTS = ["train_noisy.py", "train_curated.py", "predict.py", "lwlrap.py"]
TOOLS = [f"tools/{name}.py" for name in (
    "benchmark/__main__", "check/__main__", "download/__main__", "fastaudio_parity/__main__", "track/__main__", "app",
    "benchmark_archive",
    "baseline", "drift", "eda", "export", "kaggle_kernel", "learning_curve", "make_competition", "publish", "relabel",
    "runs", "sample_competition", "search", "similar",
    "tag", "verify")]
HINT = re.compile(r" ?\((default: [^()]*(\([^()]*\))?[^()]*|required|repeatable)\)")


def groups_of(help_text: str) -> dict[str, dict[str, str]]:
    """Parse a help text: for each title, the help text of each option with its hints."""
    groups, title, name = {}, "", ""
    for line, following in pairwise([*help_text.splitlines(), ""]):
        if re.fullmatch(r" \S.*", line.rstrip()) and re.fullmatch(r" -{20,}", following.rstrip()):
            title, name = line.strip(), ""
            groups[title] = {}
        elif title and line.startswith("  "):
            text = line[2:].rstrip()
            begins = re.match(r"\S" if title == "positional arguments" else r"--?\w", text)
            if begins and set(text) != {"-"}:
                name, _, start = text.partition("  ")
                groups[title][name] = start.strip()
            elif text.startswith(" ") and name:
                groups[title][name] = f"{groups[title][name]} {text.strip()}".strip()
    return groups


def options_of(help_text: str) -> dict[str, str]:
    """The help texts of all options and positional arguments."""
    return {name: text for group in groups_of(help_text).values() for name, text in group.items()}


@pytest.fixture
def helped(tmp_path, monkeypatch) -> Callable[[str], str]:
    """Call a script with --help, and return what it prints."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(script: str) -> str:
        result = Workshop(tmp_path, tmp_path).call(script, "--help")
        assert result.code == 0 and not result.err, result.err
        return result.out
    return call


def parsed(monkeypatch, kind: type, *words: str):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "data", "--run", "x", "--from-scratch", *words]
                        if kind is TrainCurated else ["train.py", "--data", "data", "--run", "x", *words])
    return parse_training(kind, "")


def test_the_list_of_tools_is_complete():
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "tools").rglob("*.py")
             if "run_script(main" in path.read_text(encoding="utf-8")}
    assert found == {*TOOLS, "tools/explore.py"}        # the old name of tools.eda


@pytest.mark.parametrize("script", [*SCRIPTS, *TOOLS])
def test_help_explains_every_option_in_full_sentences(helped, script):
    text = helped(script)
    name = script.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    expected = f"python -m {name}" if script in TOOLS else f"python {script}"
    assert re.match(rf"usage: {re.escape(expected)}(?= |$)", text, re.MULTILINE), text.splitlines()[0]
    assert not re.search(r"\bNone\b|(?<![\w.])/(home|root|tmp|usr|work)/", text)
    options = options_of(text)
    assert options.pop("-h, --help") == "show this help message and exit"       # tyro's own line
    assert options
    for option, described in options.items():
        sentence = HINT.sub("", described).strip()
        assert re.match(r"[A-Z].*\.$", sentence), f"{option}: {described}"


def test_a_stage_hides_the_options_of_the_other_stage(helped):
    noisy, curated = helped("train_noisy.py"), helped("train_curated.py")
    assert "--curated." not in noisy and "--noisy.epochs" in options_names(noisy)
    assert "--noisy." not in curated and "--curated.epochs" in options_names(curated)


def options_names(help_text: str) -> set[str]:
    return {name for option in options_of(help_text) for name in re.findall(r"--[\w.-]+", option)}


def test_the_hidden_options_are_accepted(monkeypatch):
    assert parsed(monkeypatch, TrainNoisy, "--curated.epochs", "7").curated.epochs == (7,)
    assert parsed(monkeypatch, TrainCurated, "--noisy.mixup", "0.3").noisy.mixup == 0.3


@pytest.mark.parametrize("script", ["train_noisy.py", "train_curated.py"])
def test_help_describes_all_recipes(helped, script):
    described = options_of(helped(script))["--recipe STR"]
    for name, recipe in NAMED_RECIPES.items():
        assert f"{name}: {recipe.summary}" in described


def test_the_options_are_in_groups(helped):
    groups = groups_of(helped("train_curated.py"))
    members = {"data": "--cache", "run": "--micro-batches", "network": "--network", "audio": "--trim-db",
               "augmentation": "--mask-width", "training": "--batch-size", "evaluation": "--epoch-windows",
               "curated": "--curated.epochs"}
    assert list(groups) == ["options", *(f"{name} options" for name in members)]
    for name, option in members.items():
        holders = [title for title, group in groups.items() if option in {each.split()[0] for each in group}]
        assert holders == [f"{name} options"]


def test_a_misspelt_option_is_refused_with_a_suggestion(tmp_path):
    result = Workshop(tmp_path, tmp_path).call("train_noisy.py", "--data", "x", "--run", "x", "--epoch-window", "2")
    assert result.code == 2
    assert "--epoch-windows" in result.out + result.err and "Traceback" not in result.out + result.err


@pytest.mark.parametrize("words", [("--accumulate", "2"), ("--accumulate=2",)])
def test_an_old_option_works_with_a_note(monkeypatch, capsys, words):
    assert parsed(monkeypatch, TrainNoisy, *words).run.micro_batches == 2
    assert "note: --accumulate is now called --micro-batches" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train_noisy.py", "train_curated.py"])
def test_an_unknown_recipe_is_refused_with_a_suggestion(tmp_path, script, expect_error):
    result = Workshop(tmp_path, tmp_path).call(script, "--data", "x", "--run", "x", "--recipe", "podum")
    assert "Did you mean 'podium'?" in expect_error(result, "--recipe 'podum' is unknown")
