from __future__ import annotations

import hashlib
import os
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from bucket import files

from service.errors import DamagedFileError, OutOfSpaceError
from service.outbox import Outbox
from service.records import Instance
from service.spool import Spool
from service.staging import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.storage import Storage


@pytest.fixture
def spool(storage: Storage, tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", storage=storage)
    made.prepare()
    return made


def kept(spool: Spool, content: bytes = b"data set") -> str:
    incoming = spool.receive()
    incoming.write_meta(b"meta")
    incoming.write(content)
    return spool.keep(incoming, study_instance_uid="../../etc", sop_instance_uid="../passwd")


def content(spool: Spool, key: str) -> bytes:
    with spool.file(key) as path:
        return path.read_bytes()


def recorded(key: str, data_set: bytes = b"data set") -> Instance:
    return Instance(
        sop_instance_uid="1.2.3.4",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="DX",
        sha256=hashlib.sha256(data_set).hexdigest(),
        size=len(data_set),
        key=key,
        calling_ae="PACS",
        called_ae="PELLUCID",
        address="127.0.0.1",
        received_at=datetime.now(UTC),
    )


def test_an_instance_is_kept_under_a_name_that_holds_no_uid(spool: Spool, storage: Storage, tmp_path: Path) -> None:
    key = kept(spool)
    assert content(spool, key) == b"metadata set"
    assert ".." not in key
    assert [entry.key for entry in storage.entries("instances")] == [f"instances/{key}"]
    with spool.file(key) as path:
        assert path.resolve().is_relative_to(tmp_path.resolve())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_worker_reads_is_what_arrived_and_nothing_is_left_of_its_copy(spool: Spool, tmp_path: Path) -> None:
    keys = [kept(spool, bytes([number]) * 100) for number in range(20)]
    before = files(tmp_path)
    with spool.files([recorded(key, bytes([number]) * 100) for number, key in enumerate(keys)]) as paths:
        assert [path.read_bytes()[-1] for path in paths] == list(range(20))
    assert files(tmp_path) == before


def test_an_instance_that_is_not_what_arrived_is_never_read(spool: Spool, storage: Storage, tmp_path: Path) -> None:
    key = kept(spool)
    for other in (b"metadata sex", b"metameta data se", b"set", b""):
        storage.write(f"instances/{key}", other)
        before = files(tmp_path)
        with pytest.raises(DamagedFileError, match="is not what arrived"), spool.files([recorded(key)]):
            pass
        assert files(tmp_path) == before


def test_a_missing_instance_is_named(spool: Spool, storage: Storage) -> None:
    first, gone = kept(spool), kept(spool, b"another")
    storage.remove(f"instances/{gone}")
    wanted = [recorded(first), recorded(gone, b"another")]
    with pytest.raises(DamagedFileError, match=f"{gone} is missing"), spool.files(wanted):
        pass


def test_a_discarded_instance_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    incoming = spool.receive()
    incoming.write(b"x" * 10_000_000)
    incoming.discard()
    assert files(tmp_path) == []


def test_what_a_dead_receiver_left_is_removed_at_start(spool: Spool, tmp_path: Path) -> None:
    half = spool.receive()
    half.write(b"half")
    half.close()
    assert Spool(tmp_path / "spool").prepare() == 1
    assert files(tmp_path) == []


def test_below_the_watermark_nothing_is_accepted(storage: Storage, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", storage=storage, minimum_free_bytes=1 << 60)
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


def test_equal_objects_of_a_job_have_one_file_in_the_outbox(storage: Storage) -> None:
    outbox = Outbox(storage)
    key = outbox.keep("ab12", b"object")
    assert outbox.keep("ab12", b"object") == key
    assert [entry.key for entry in outbox.objects()] == [key]
    with outbox.file(key) as path:
        assert path.read_bytes() == b"object"


def test_a_repeated_instance_has_one_file(spool: Spool, storage: Storage) -> None:
    assert kept(spool) == kept(spool)
    assert len(list(storage.entries(""))) == 1


def test_orphans_are_set_aside_unless_they_are_young_or_recorded(spool: Spool, storage: Storage) -> None:
    key = kept(spool)
    assert spool.set_orphans_aside(lambda _keys: set()) == 0
    assert spool.set_orphans_aside(set, settled_after_s=-60.0) == 0
    answers = iter([set(), {key}])
    assert spool.set_orphans_aside(lambda _keys: next(answers), settled_after_s=-60.0) == 0
    assert content(spool, key) == b"metadata set"
    assert spool.set_orphans_aside(lambda _keys: set(), settled_after_s=-60.0) == 1
    (orphan,) = spool.orphans()
    with storage.file(orphan.key) as path:
        assert path.read_bytes() == b"metadata set"
    assert storage.find(f"instances/{key}") is None
    spool.remove_orphan(orphan)
    assert list(storage.entries("")) == []


def test_old_orphans_are_found_by_age(spool: Spool, grow_old: Callable[[float], None]) -> None:
    kept(spool)
    grow_old(3600.0)
    assert spool.set_orphans_aside(lambda _keys: set()) == 1


def test_two_listeners_that_look_for_orphans_at_once_lose_nothing(
    spool: Spool, storage: Storage, tmp_path: Path
) -> None:
    other = Spool(tmp_path / "other", storage=storage)
    key = kept(spool)

    def first_the_other(_keys: object) -> set[str]:
        other.set_orphans_aside(lambda _keys: set(), settled_after_s=-60.0)
        return set()

    spool.set_orphans_aside(first_the_other, settled_after_s=-60.0)
    assert [entry.key for entry in spool.orphans()] == ["orphans/" + key.replace("/", "-")]


class Killed(BaseException):
    """The process ends here."""


def die_looking_for_orphans(spool: Spool) -> None:
    """Be a listener that is killed after it has moved a file, and before it asks for its row again."""
    answers = iter([set()])

    def dying(_keys: object) -> set[str]:
        for answer in answers:
            return answer
        raise Killed

    with pytest.raises(Killed):
        spool.set_orphans_aside(dying, settled_after_s=-60.0)


def test_an_instance_whose_row_came_while_a_listener_died_looking_for_orphans_can_be_read(
    spool: Spool, storage: Storage
) -> None:
    key = kept(spool)
    die_looking_for_orphans(spool)
    assert storage.find(f"instances/{key}") is None
    with spool.files([recorded(key)]) as (path,):
        assert path.read_bytes() == b"metadata set"
    assert spool.orphans() == []


def test_an_orphan_that_got_its_row_goes_back_with_the_next_search(spool: Spool, storage: Storage) -> None:
    known, unknown = kept(spool), kept(spool, b"another")
    die_looking_for_orphans(spool)
    assert spool.set_orphans_aside({known}.intersection) == 0
    assert storage.find(f"instances/{known}") is not None
    assert [entry.key for entry in spool.orphans()] == ["orphans/" + unknown.replace("/", "-")]


def test_what_a_machine_that_is_no_more_left_half_received_goes_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("gone-7-ab.part", 90_000), ("busy-7-ab.part", 60)):
        part = tmp_path / name
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age_s,) * 2)
    assert prepare(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["busy-7-ab.part"]
