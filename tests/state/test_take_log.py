"""The log of taken entries: what is read after a crash at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_dify_proxy.state.take_log import HALF, START, TakeLog, clear_takes, read_takes

LONG_AGO = 1_000_000.25


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def test_takes_are_read_as_they_were_logged(file: int) -> None:
    log = TakeLog(file)
    assert log.append([("kind:a", 1.5), ("kind:b", LONG_AGO)])
    assert log.append([("kind:c", 0.1)])
    assert list(read_takes(file)) == [("kind:a", 1.5), ("kind:b", LONG_AGO), ("kind:c", 0.1)]
    clear_takes(file)
    assert list(read_takes(file)) == []


def test_an_empty_file_has_no_takes(file: int) -> None:
    assert list(read_takes(file)) == []


@pytest.mark.parametrize("written", range(30))
def test_a_record_that_was_cut_off_is_ignored(file: int, written: int) -> None:
    log = TakeLog(file)
    log.append([("kind:a", 1.5)])
    end = os.pread(file, 100, START).rstrip(b"\0")
    log.append([("kind:b", LONG_AGO)])
    whole = os.pread(file, 100, START).rstrip(b"\0")
    cut = whole[: len(end) + written].ljust(100, b"\0")
    os.pwrite(file, cut, START)
    complete = cut.rstrip(b"\0") == whole
    assert list(read_takes(file)) == [("kind:a", 1.5), *([("kind:b", LONG_AGO)] if complete else [])]


def test_takes_are_overwritten_only_after_their_batch_is_committed(file: int) -> None:
    log = TakeLog(file)
    log.append([("kind:1", 1.0)])
    log.end_batch(1, committed=0)
    log.append([("kind:2", 2.0)])
    log.end_batch(2, committed=0)  # the first batch is not committed, so its half cannot be used again
    log.append([("kind:3", 3.0)])
    assert sorted(read_takes(file)) == [("kind:1", 1.0), ("kind:2", 2.0), ("kind:3", 3.0)]
    log.end_batch(3, committed=1)
    log.append([("kind:4", 4.0)])
    assert sorted(read_takes(file)) == [("kind:2", 2.0), ("kind:3", 3.0), ("kind:4", 4.0)]


def test_a_full_log_takes_no_more_until_a_batch_is_committed(file: int) -> None:
    log = TakeLog(file)
    key = "k" * 1000
    count = 0
    while log.append([(key, float(count))]):
        count += 1
    assert HALF // 1020 - 2 <= count <= HALF // 1000
    assert len(list(read_takes(file))) == count
    log.end_batch(1, committed=0)
    assert log.append([(key, 0.5)])


def test_a_file_that_cannot_be_written_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert not TakeLog(descriptor).append([("kind:a", 1.5)])
    finally:
        os.close(descriptor)
