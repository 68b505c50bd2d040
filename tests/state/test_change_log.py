"""What the log of changes returns after a crash at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_dify_proxy.state.change_log import HALF, START, ChangeLog, clear_changes, is_empty, read_changes
from openai_dify_proxy.state.entries import Entry

PERMANENT = Entry(b"one", None, 1_000_000.25, "")
EXPIRING = Entry(b"\xff" * 20, 1_000_060.1, 1_000_000.1, "ann")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def log_of(file: int) -> ChangeLog:
    """Return a log with the batch 1."""
    log = ChangeLog(file)
    log.begin_batch(1, committed=0)
    return log


def test_changes_are_read_as_they_were_logged(file: int) -> None:
    log = log_of(file)
    assert is_empty(file)
    assert log.append({"kind:a": PERMANENT, "kind:b": EXPIRING})
    assert log.append({"kind:a": None, "kind:c": EXPIRING})
    assert read_changes(file, 0) == (1, {"kind:a": None, "kind:b": EXPIRING, "kind:c": EXPIRING})
    assert not is_empty(file)
    clear_changes(file)
    assert is_empty(file)
    assert read_changes(file, 0) == (0, {})


def test_a_file_without_a_log_has_no_changes(file: int) -> None:
    assert is_empty(file)
    assert read_changes(file, 7) == (7, {})


def test_committed_batches_are_left_out(file: int) -> None:
    log = log_of(file)
    log.append({"kind:a": PERMANENT})
    log.begin_batch(2, committed=0)
    log.append({"kind:a": None})
    log.begin_batch(3, committed=0)
    log.append({"kind:b": PERMANENT})
    assert read_changes(file, 0) == (3, {"kind:a": None, "kind:b": PERMANENT})
    assert read_changes(file, 1) == (3, {"kind:a": None, "kind:b": PERMANENT})
    assert read_changes(file, 2) == (3, {"kind:b": PERMANENT})
    assert read_changes(file, 3) == (3, {})


@pytest.mark.parametrize("written", range(60))
def test_a_record_that_was_cut_off_is_ignored(file: int, written: int) -> None:
    log = log_of(file)
    start = START + HALF  # the first batch goes to the second half
    log.append({"kind:a": PERMANENT})
    end = len(os.pread(file, 1000, start).rstrip(b"\0"))
    log.append({"kind:b": EXPIRING})
    whole = os.pread(file, 1000, start).rstrip(b"\0")
    cut = whole[: end + written]
    os.pwrite(file, cut.ljust(1000, b"\0"), start)
    expected = {"kind:a": PERMANENT, **({"kind:b": EXPIRING} if cut == whole else {})}
    assert read_changes(file, 0) == (1, expected)


def test_records_that_are_no_changes_are_ignored(file: int) -> None:
    log = log_of(file)
    log.append({"kind:a": PERMANENT})
    log.append({"kind:b": "text"})  # type: ignore[dict-item]  # as a damaged or foreign file may have it
    assert read_changes(file, 0) == (1, {"kind:a": PERMANENT})


def test_records_are_overwritten_only_after_their_batch_is_committed(file: int) -> None:
    log = log_of(file)
    log.append({"kind:1": PERMANENT})
    log.begin_batch(2, committed=0)
    log.append({"kind:2": PERMANENT})
    log.begin_batch(3, committed=0)  # the first batch is not committed, so its half cannot be used again
    log.append({"kind:3": PERMANENT})
    assert read_changes(file, 0)[1].keys() == {"kind:1", "kind:2", "kind:3"}
    log.begin_batch(4, committed=1)
    log.append({"kind:4": PERMANENT})
    assert read_changes(file, 0)[1].keys() == {"kind:2", "kind:3", "kind:4"}
    assert read_changes(file, 1) == (4, dict.fromkeys(["kind:2", "kind:3", "kind:4"], PERMANENT))


def test_a_full_log_has_room_again_once_a_batch_is_committed(file: int) -> None:
    log = log_of(file)
    change = Entry(bytes(10_000), None, 1.0, "")
    count = 0
    while log.append({f"kind:{count}": change}):
        count += 1
    assert HALF // 10_100 <= count <= HALF // 10_000
    assert len(read_changes(file, 0)[1]) == count
    log.begin_batch(2, committed=0)
    assert log.append({"kind:a": change})


def test_the_whole_log_has_its_place_on_the_disk_from_the_beginning(file: int) -> None:
    clear_changes(file)
    log_of(file)
    assert os.fstat(file).st_blocks * 512 >= 2 * HALF
    os.ftruncate(file, 0)
    os.ftruncate(file, START + 2 * HALF)  # a hole, as after a copy
    log_of(file)
    assert os.fstat(file).st_blocks * 512 >= 2 * HALF


def test_an_ended_log_takes_nothing(file: int) -> None:
    log = log_of(file)
    log.end()
    assert not log.append({"kind:a": PERMANENT})
    assert is_empty(file)


def test_a_file_that_cannot_be_written_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert not ChangeLog(descriptor).append({"kind:a": PERMANENT})
    finally:
        os.close(descriptor)
