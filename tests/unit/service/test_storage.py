"""What every storage promises, whatever it is; the spool and the outbox rely on nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from bucket import files

from service.errors import DamagedFileError
from service.storage import remove_old

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.storage import Storage


def test_a_file_that_is_put_moves_there_and_can_be_read_again(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"first")
    storage.put("ab/cd.dcm", source)
    assert not source.exists()
    with storage.file("ab/cd.dcm") as path:
        assert path.read_bytes() == b"first"
        assert path.stat().st_mode & 0o077 in (0, 0o044)  # `put` keeps the mode of its source


def test_the_same_key_holds_the_last_bytes(storage: Storage) -> None:
    storage.write("ab/cd.dcm", b"first")
    storage.write("ab/cd.dcm", b"second")
    with storage.file("ab/cd.dcm") as path:
        assert path.read_bytes() == b"second"
    assert [(entry.key, entry.size) for entry in storage.entries("")] == [("ab/cd.dcm", 6)]


def test_what_is_missing_is_said_with_its_key_and_what_to_do(storage: Storage, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(DamagedFileError, match=r"ab/cd\.dcm is missing in .*: restore it"), storage.file("ab/cd.dcm"):
        pass
    assert files(tmp_path) == before
    assert storage.find("ab/cd.dcm") is None
    assert not storage.move("ab/cd.dcm", "ef/gh.dcm")
    storage.remove("ab/cd.dcm")


def test_a_moved_file_lies_under_its_new_key_alone(storage: Storage) -> None:
    storage.write("instances/cd.dcm", b"x")
    assert storage.move("instances/cd.dcm", "orphans/cd.dcm")
    assert [entry.key for entry in storage.entries("orphans")] == ["orphans/cd.dcm"]
    assert list(storage.entries("instances")) == []
    storage.remove("orphans/cd.dcm")
    assert list(storage.entries("")) == []


def test_a_folder_is_no_beginning_of_another_name(storage: Storage) -> None:
    storage.write("orphans/a.dcm", b"x")
    storage.write("orphans-of-others/b.dcm", b"x")
    assert [entry.key for entry in storage.entries("orphans")] == ["orphans/a.dcm"]


def test_what_came_after_a_moment_is_not_removed_with_what_is_older(
    storage: Storage, grow_old: Callable[[float], None]
) -> None:
    storage.write("a.dcm", b"old")
    assert remove_old(storage, "a.dcm", since=time.monotonic()) == 0  # its row may be on its way
    grow_old(1000.0)
    since = time.monotonic()
    assert remove_old(storage, "a.dcm", since=since) == 3
    assert remove_old(storage, "a.dcm", since=since) == 0
    storage.write("a.dcm", b"again")
    assert remove_old(storage, "a.dcm", since=since) == 0
    assert storage.find("a.dcm") is not None
