"""The scripts and tools without the modules that only Unix has."""
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, Workshop

# Our modules and filelock cannot import what only Unix has. Torch and psutil may: they do without it on
# Windows.
RUN = f"""
import builtins, runpy, sys, warnings

def import_on_windows(name, globals=None, *arguments, **options):
    if name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog") and globals:
        importer = globals.get("__name__", "").partition(".")[0]
        if importer in ("__main__", "tagging", "tagging_lite", "tools", "filelock"):
            raise ImportError(name)
    return real_import(name, globals, *arguments, **options)

real_import, builtins.__import__ = builtins.__import__, import_on_windows
warnings.filterwarnings("ignore", "only soft file lock is available")       # as on a disk without locks
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(shop: Workshop, script: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", RUN, str(ROOT / script), *map(str, words)], cwd=shop.folder, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pipeline_needs_no_module_that_only_unix_has(workshop, trained):
    assert "together" in call(workshop, "train_noisy.py", *workshop.options("r"), *TINY, "--folds", "1")
    assert "together" in call(workshop, "train_curated.py", *workshop.options("r"), "--folds", "1")
    out = workshop.folder / "r.csv"
    call(workshop, "predict.py", *workshop.options("r"), "--out", out)
    call(workshop, "lwlrap.py", out, "--truth", workshop.data / "test_post_competition.csv")
    for stage in ("noisy", "curated"):
        name = "fold1.predictions.csv"
        assert (workshop.stage("r", stage) / name).read_bytes() == (trained.stage("first", stage) / name).read_bytes()


def test_the_modules_are_really_missing(workshop):
    script = workshop.folder / "script.py"
    script.write_text("import fcntl")
    with pytest.raises(AssertionError, match="ImportError: fcntl"):
        call(workshop, str(script))


def test_all_modules_can_be_imported_without_them(workshop):
    names = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for folder in ("tagging", "tools")
             for path in (ROOT / folder).rglob("*.py") if path.name not in ("__init__.py", "reference.py")]
    # tools.fastaudio_parity.reference runs in an environment of its own.
    script = workshop.folder / "script.py"
    script.write_text(f"import importlib\nfor name in {names}:\n    importlib.import_module(name)\nprint('done')")
    assert len(names) > 40 and "done" in call(workshop, str(script))


def test_peak_memory_is_in_bytes_on_each_system(monkeypatch):
    import resource

    from tagging.utils import devices
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss       # kilobytes on Linux
    assert devices.host_peak_memory() == pytest.approx(1024 * peak, rel=0.1)
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    assert devices.host_peak_memory() == pytest.approx(peak, rel=0.1)       # macOS counts bytes
    monkeypatch.setitem(sys.modules, "resource", None)
    assert devices.host_peak_memory() == pytest.approx(1024 * peak, rel=0.9)    # today's memory where no peak is known
