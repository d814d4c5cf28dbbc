"""The journal of a study: torn and damaged lines."""
import json
from contextlib import ExitStack

import pytest
from optuna.trial import TrialState
from search_study import make_sweep

from tagging.errors import TaggingError
from tagging.search.journal import NAME, Journal, open_study


def act_out(sweep) -> list[bytes]:
    """Two trials, with all kinds of lines. Return the journal after each line."""
    with ExitStack() as held:
        first = sweep.reserve(held)
        sweep.report(first.number, 0, {1: 0.5, 2: 0.6})
        sweep.complete(first.number, {"sounds fold 1": 0.6})
        sweep.fail(sweep.reserve(held).number, "a reason")
        sweep.prune(sweep.reserve(held).number)
        sweep.reserve(held)
    lines = (sweep.folder / NAME).read_bytes().splitlines(keepends=True)
    return [b"".join(lines[:count]) for count in range(1, len(lines) + 1)]


def finish_all(sweep) -> list[TrialState]:
    """Finish the study as workers do."""
    while True:
        with ExitStack() as held:
            found = sweep.reserve(held)
            if isinstance(found, list):
                return [trial.state for trial in open_study(sweep.folder).get_trials() if trial.state.is_finished()]
            sweep.report(found.number, 0, {1: 0.5, 2: 0.6})
            sweep.complete(found.number, {"sounds fold 1": 0.6})


def test_a_journal_that_is_cut_after_any_line_goes_on(tmp_path):
    for place, content in enumerate(act_out(make_sweep(tmp_path / "first", 5))):
        folder = tmp_path / f"cut{place}"
        folder.mkdir()
        (folder / NAME).write_bytes(content + b'{"op_code":8,"worker_id"')
        done = finish_all(make_sweep(folder, 3))
        assert sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in done) == 3
        assert TrialState.RUNNING not in done
        assert all(json.loads(line) for line in (folder / NAME).read_text().splitlines())


def test_a_last_line_that_is_cut_at_any_byte_is_removed(tmp_path, caplog):
    *_, before, whole = act_out(make_sweep(tmp_path / "first", 5))
    folder = tmp_path / "cut"
    folder.mkdir()
    journal = Journal(folder)
    for size in range(len(before), len(whole) + 1):
        (folder / NAME).write_bytes(whole[:size])
        count = len(open_study(folder).get_trials())        # a reader changes nothing
        assert (folder / NAME).read_bytes() == whole[:size]
        caplog.clear()
        with journal.transaction():
            assert (folder / NAME).read_bytes() == (whole if size == len(whole) else before)
        notes = [message for message in caplog.messages if "incomplete" in message]
        assert len(notes) == (len(before) < size < len(whole)) and all(
            f"({size - len(before)} bytes)" in note for note in notes)
        del journal.mine.storage
        assert count == len(open_study(folder).get_trials())
    for size in (1, len(before) // 2, len(before)):         # also if the whole file is one torn line
        (folder / NAME).write_bytes(before[:size].replace(b"\n", b" "))
        make_sweep(folder, 1)
        assert len(open_study(folder).get_trials()) == 0


def test_a_process_reads_on_after_another_one_has_cut_a_line(tmp_path):
    ours, theirs = make_sweep(tmp_path, 3), make_sweep(tmp_path, 3)
    with ExitStack() as held:
        assert ours.reserve(held).number == 0
        with open(tmp_path / NAME, "ab") as file:
            file.write(b'{"op_code"')
        assert theirs.reserve(held).number == 1 and ours.reserve(held).number == 2
        assert ours.reserve(held) == [0, 1, 2]


@pytest.mark.parametrize("line", [b"{}", b"[]", b"3", b"op_code", b'{"op_code":4', b"\xff\xfe", b"\0\0", b"",
                                  b'{"op_code":8,"worker_id"{"op_code":8}'])
def test_a_damaged_line_is_named(tmp_path, line):
    *_, whole = act_out(make_sweep(tmp_path / "first", 5))
    lines = whole.splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(b"".join([*lines[:4], line + b"\n", *lines[4:]]))
    for look in (lambda: make_sweep(tmp_path, 5), lambda: open_study(tmp_path)):
        with pytest.raises(TaggingError, match=r"journal\.log, line 5 is damaged\. Restore the file"):
            look()


@pytest.mark.parametrize("line", [b'{"op_code":77}', b'{"op_code":4}', b'{"op_code":"x"}',
                                  b'{"op_code":6,"trial_id":0,"state":9,"worker_id":"x","values":null}'])
def test_a_line_that_means_nothing_to_optuna_is_one_error(tmp_path, line):
    *_, whole = act_out(make_sweep(tmp_path / "first", 5))
    lines = whole.splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(b"".join([*lines[:5], line + b"\n", *lines[5:]]))
    with pytest.raises(TaggingError, match=r"journal\.log is damaged: .*Restore it"):
        make_sweep(tmp_path, 5)
