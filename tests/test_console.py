"""Programs without a console, without a home folder, with a full disk behind stdout, and with names in any encoding."""
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from tagging_lite.console import json_text

PROGRAM = """
import os, sys
from tagging_lite.console import prepare_streams
if sys.argv[1:] == ["pythonw"]:
    sys.stdin = sys.stdout = sys.stderr = None
prepare_streams()
with open("out.txt", "w") as file:
    number = file.fileno()
    print("result", file=file)
    os.write(1, b"library "); os.write(2, b"library ")
print("printed", sys.stdout.isatty(), repr(sys.stdin.read()))
print("error", file=sys.stderr)
sys.stdout.flush()
sys.exit(0 if number > 2 else f"the file has number {number}")
"""


def run(*words, closed=(), cwd=ROOT, **options):
    """Start Python. `closed` has the numbers of the standard streams that are closed, as by `>&-`."""
    shell = " ".join(f"{number}>&-" for number in closed)
    options["env"] = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1",
                      **options.pop("env", {})}
    return subprocess.run(["bash", "-c", f'exec "$0" "$@" {shell}', sys.executable, *map(str, words)], cwd=cwd,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False, **options)


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_closed_streams_drop_their_output_and_no_file_takes_their_number(tmp_path, closed):
    done = run("-c", PROGRAM, closed=closed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "result\n"
    assert done.stdout == (b"" if 1 in closed else b"library printed False ''\n")
    assert done.stderr == (b"" if 2 in closed else b"library error\n")


def test_streams_that_are_none_although_they_are_open(tmp_path):
    done = run("-c", PROGRAM, "pythonw", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"library ", b"library ")


@pytest.mark.parametrize(("encoding", "expected"), [
    ("utf-8", "犬 ü 🦜 ".encode() + b"caf\xe9\n"), ("latin-1", b"\\u72ac \xfc \\U0001f99c caf\xe9\n"),
    ("ascii", b"\\u72ac \\xfc \\U0001f99c caf\xe9\n")])
def test_any_name_can_be_printed_and_bytes_that_are_not_utf_8_stay_as_they_are(encoding, expected):
    code = "from tagging_lite.console import prepare_streams; prepare_streams(); print('犬 ü 🦜 caf\\udce9')"
    done = run("-c", code, env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", ["plain", "ü", "犬 🦜", "caf\udce9", 'quote " and \\'])
def test_json_is_valid_in_any_encoding_and_readable_where_it_can_be(name, encoding):
    text = json_text({"path": name}, encoding)
    assert json.loads(text.encode(encoding).decode(encoding)) == {"path": name}
    assert name != "ü" or ("ü" in text) == (encoding != "ascii")


@pytest.fixture
def commands(trained, exported, tmp_path):
    """Commands, and the exit code of each."""
    test, run_of = trained.data / "test", ("--run", "first", "--models", trained.folder / "models")
    data = ("--data", trained.data, "--cache", trained.folder / "cache", "--device", "cpu")
    return {"lite": (["-m", "tagging_lite", exported, test], 0),
            "tag": (["-m", "tools.tag", "--model", exported, test], 0),
            "predict": ([ROOT / "predict.py", *run_of, *data, "--out", tmp_path / "new/s.csv"], 0),
            "eda": (["-m", "tools.eda", "--data", trained.data, "--out", tmp_path / "data.html"], 0),
            "publish": (["-m", "tools.publish", *run_of, "--out", tmp_path / "published"], 0),
            "runs": (["-m", "tools.runs", "--models", trained.folder / "models"], 0),
            "no data": ([ROOT / "predict.py", "--data", tmp_path / "nowhere", "--run", "first"], 2),
            "bad option": (["-m", "tools.tag", "--nonsense"], 2), "bad lite": (["-m", "tagging_lite"], 2),
            "help": (["-m", "tools.tag", "--help"], 0)}


@pytest.mark.parametrize(("name", "closed"), [
    ("lite", (0, 1, 2)), ("lite", (1,)), ("tag", (1,)), ("predict", (0, 1, 2)), ("eda", (2,)), ("no data", (1,)),
    ("bad option", (0, 1, 2)), ("bad option", (1,)), ("bad lite", (2,)), ("help", (1,))])
def test_commands_work_and_fail_as_usual_without_a_console(commands, tmp_path, name, closed):
    words, code = commands[name]
    done = run(*words, closed=closed)
    assert done.returncode == code and b"Traceback" not in done.stdout + done.stderr
    assert bool(done.stderr) == (code != 0 and 2 not in closed)
    assert name != "predict" or (tmp_path / "new/s.csv").read_text().startswith("fname,")


@pytest.mark.parametrize(("name", "home"), [
    ("lite", "/proc"), ("lite", None), ("eda", "/proc"), ("predict", "/dev/null/home"), ("publish", None)])
def test_commands_need_no_home_folder(commands, tmp_path, name, home):
    """/proc cannot be written by root either. None: the account has no entry in the system's list of users."""
    words, _ = commands[name]
    env = {"HOME": home} if home else {}
    if home is None:
        (tmp_path / "sitecustomize.py").write_text(
            "import pwd\ndef getpwuid(number): raise KeyError(f'getpwuid(): uid not found: {number}')\n"
            "pwd.getpwuid = getpwuid\n")
        env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    done = run(*words, env=env)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["lite", "tag", "runs"])
def test_a_full_disk_behind_stdout_is_one_error(commands, name):
    with open("/dev/full", "wb") as full:
        words, _ = commands[name]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("module", ["tagging_lite", "tools.tag"])
@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_the_name_of_a_file_is_printed_as_it_is_on_the_disk(trained, exported, tmp_path, module, form):
    name = tmp_path / os.fsdecode(b"caf\xe9 \xe7\x8a\xac.wav")
    name.write_bytes(next((trained.data / "test").iterdir()).read_bytes())
    model = [exported] if module == "tagging_lite" else ["--model", exported]
    done = run("-m", module, *model, tmp_path, "--format", form)
    assert done.returncode == 0, done.stderr
    if form == "json":
        assert json.loads(done.stdout)[0]["path"] == str(name)
    else:
        assert os.fsencode(name) in done.stdout
