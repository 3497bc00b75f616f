from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

import pytest

from service.errors import OutOfSpaceError
from service.outbox import Outbox
from service.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path


def test_an_instance_is_kept_under_a_name_that_holds_no_uid(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    incoming = spool.receive()
    incoming.write_meta(b"meta")
    incoming.write(b"data set")
    key = spool.keep(incoming, study_instance_uid="../../etc", sop_instance_uid="../passwd")
    path = spool.path(key)
    assert path.read_bytes() == b"metadata set"
    assert incoming.sha256 == hashlib.sha256(b"data set").hexdigest()
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert ".." not in key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_discarded_instance_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    incoming = spool.receive()
    incoming.write(b"x" * 10_000_000)
    incoming.discard()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_dead_receiver_left_is_removed_at_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    half = spool.receive()
    half.write(b"half")
    half.sync()
    assert Spool(tmp_path).prepare() == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_below_the_watermark_nothing_is_accepted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, minimum_free_bytes=1 << 60)
    spool.prepare()
    with pytest.raises(OutOfSpaceError, match="minimum_free_mb"):
        spool.receive()


def test_an_instance_over_the_limit_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, maximum_instance_bytes=100)
    spool.prepare()
    incoming = spool.receive()
    with pytest.raises(OutOfSpaceError, match="maximum_instance_mb"):
        incoming.write(b"x" * 101)
    incoming.discard()


def test_equal_objects_of_a_job_have_one_file_in_the_outbox(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.keep("ab12", b"object") == outbox.keep("ab12", b"object")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def kept(spool: Spool, content: bytes = b"data set") -> str:
    incoming = spool.receive()
    incoming.write(content)
    return spool.keep(incoming, study_instance_uid="1.2", sop_instance_uid="1.2.3")


def test_an_instance_is_forgotten_only_when_no_row_refers_to_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    key = kept(spool)
    assert not spool.forget(key, set)
    assert spool.path(key).is_file()
    assert spool.forget(key, lambda _keys: set())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_is_recorded_while_it_is_forgotten_goes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    key = kept(spool)
    answers = iter([set(), {key}])
    assert not spool.forget(key, lambda _keys: next(answers))
    assert spool.path(key).read_bytes() == b"data set"
    assert spool.orphans() == []


def test_orphans_are_set_aside_unless_they_are_young_or_recorded(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    key = kept(spool)
    assert spool.set_orphans_aside(lambda _keys: set()) == 0
    assert spool.set_orphans_aside(set, settled_after_s=-60.0) == 0
    answers = iter([set(), {key}])
    assert spool.set_orphans_aside(lambda _keys: next(answers), settled_after_s=-60.0) == 0
    assert spool.path(key).is_file()
    assert spool.set_orphans_aside(lambda _keys: set(), settled_after_s=-60.0) == 1
    assert [path.read_bytes() for path in spool.orphans()] == [b"data set"]
    assert not spool.path(key).exists()
