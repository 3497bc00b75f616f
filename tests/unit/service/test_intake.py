from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import update

from service.intake import Intake
from service.ledger.schema import PURGED, instances
from service.pipelines import Pipeline, RunnablePipeline, job_id
from service.records import JobState

if TYPE_CHECKING:
    from conftest import Books


def pipeline(kind: str, name: str = "p", titles: tuple[str, ...] = ("PELLUCID",)) -> RunnablePipeline:
    return RunnablePipeline(
        pipeline=Pipeline(
            name=name,
            title="P",
            version="1",
            input=kind,
            model="m",
            modalities=("DX", "CR"),
            explainers=("grad-cam",),
            outputs=("secondary-capture",),
            destinations=("@sender",),
        ),
        model_sha256="b" * 64,
        called_ae_titles=titles,
    )


def intake(books: Books, *pipelines: RunnablePipeline) -> tuple[Intake, list[str]]:
    woken: list[str] = []
    made = Intake(
        arrivals=books.arrivals,
        work=books.work,
        pipelines=pipelines,
        wake=lambda name, _priority: woken.append(name),
        quiet_period_s=10,
    )
    return made, woken


def test_an_image_starts_its_job_at_once_and_only_once(books: Books) -> None:
    runner, woken = intake(books, pipeline("image"))
    books.arrive("1")
    assert runner.run_once() == 1
    books.arrive("1")
    assert runner.run_once() == 0
    assert len(woken) == 1


def test_a_study_waits_for_quiet_and_a_late_instance_makes_a_job_that_supersedes(books: Books) -> None:
    runner, woken = intake(books, pipeline("study"))
    books.arrive("1")
    books.arrive("2")
    assert runner.run_once() == 0
    books.arrivals.close_association("a")
    books.clock.now += 11
    assert runner.run_once() == 1
    assert runner.run_once() == 0
    books.arrive("3", association="b")
    books.arrivals.close_association("b")
    books.clock.now += 11
    assert runner.run_once() == 1
    newest, oldest = books.reports.jobs()
    assert newest.job.supersedes == oldest.job.id
    assert newest.job.sop_instance_uids == ("1", "2", "3")
    assert oldest.job.state is JobState.SUPERSEDED
    assert len(woken) == 2


def test_a_study_that_no_pipeline_reads_gets_one_job_that_will_say_so(books: Books) -> None:
    runner, _ = intake(books, pipeline("image"))
    for number in range(28):
        books.arrive(f"1.{number}", modality="CT")
    books.arrivals.close_association("a")
    assert runner.run_once() == 0
    books.clock.now += 11
    assert runner.run_once() == 1
    assert len(books.reports.jobs()[0].job.sop_instance_uids) == 28


def test_what_comes_after_the_images_were_deleted_takes_no_result_back(books: Books) -> None:
    runner, _ = intake(books, pipeline("study"))
    complete(runner, books, "1")
    (read,) = books.reports.jobs()
    claim = books.work.claim(read.job.id, lease_s=30, maximum_attempts=3)
    assert claim is not None
    books.work.finish(claim, [], [])
    with books.engine.begin() as connection:
        connection.execute(update(instances).values(key=PURGED))
    # A reader's presentation state, then a late image.
    assert complete(runner, books, "2", modality="PR") == 0
    assert complete(runner, books, "3") == 1
    newest, oldest = books.reports.jobs()
    assert newest.job.sop_instance_uids == ("3",)
    assert newest.job.supersedes == ""
    assert oldest.job.state is JobState.DONE


def complete(runner: Intake, books: Books, sop: str, **changes: object) -> int:
    """Let an instance arrive by itself and its study complete; return how many jobs follow."""
    books.arrive(sop, **changes)
    books.arrivals.close_association("a")
    books.clock.now += 11
    return runner.run_once()


def test_a_complete_study_gets_no_second_job_of_a_pipeline_of_images(books: Books) -> None:
    runner, _ = intake(books, pipeline("image"))
    books.arrive("1")
    books.arrive("2")
    assert runner.run_once() == 2
    books.arrivals.close_association("a")
    books.clock.now += 11
    assert runner.run_once() == 0


def test_every_job_of_one_look_is_called_for(books: Books) -> None:
    runner, woken = intake(books, pipeline("image"))
    for sop in ("1", "2", "3"):
        books.arrive(sop)
    assert runner.run_once() == 3
    assert sorted(woken) == sorted(report.job.id for report in books.reports.jobs())


def test_a_late_instance_takes_back_the_results_of_its_own_pipeline_and_title_alone(books: Books) -> None:
    runner, _ = intake(books, pipeline("study", "a"), pipeline("study", "b"), pipeline("study", "c", ("OTHER",)))
    assert complete(runner, books, "1") == 2
    assert complete(runner, books, "1", called_ae="OTHER") == 1
    assert complete(runner, books, "2") == 2
    reports = {report.job.id: report.job for report in books.reports.jobs()}
    replaced = {job.pipeline: reports[job.supersedes].pipeline for job in reports.values() if job.supersedes}
    assert replaced == {"a": "a", "b": "b"}
    assert {job.pipeline for job in reports.values() if job.state is JobState.SUPERSEDED} == {"a", "b"}


def test_a_pipeline_at_two_titles_reads_of_a_study_what_each_was_sent(books: Books) -> None:
    runner, _ = intake(books, pipeline("study", titles=("PELLUCID", "OTHER")))
    books.arrive("1")
    assert complete(runner, books, "2", called_ae="OTHER") == 2
    read = {report.job.called_ae: report.job for report in books.reports.jobs()}
    assert read["PELLUCID"].sop_instance_uids == ("1",)
    assert read["OTHER"].sop_instance_uids == ("2",)
    assert complete(runner, books, "3", called_ae="OTHER") == 1
    newest = books.reports.jobs()[0].job
    assert newest.sop_instance_uids == ("2", "3")
    assert newest.supersedes == read["OTHER"].id


def test_the_called_title_chooses_the_pipeline(books: Books) -> None:
    runner, _ = intake(books, pipeline("image", "a"), pipeline("image", "b", ("OTHER",)))
    books.arrive("1", called_ae="OTHER")
    assert runner.run_once() == 1
    assert books.reports.jobs()[0].job.pipeline == "b"


def test_a_broker_out_of_reach_loses_no_job(books: Books) -> None:
    def down(_name: str, _priority: str) -> None:
        raise ConnectionError

    runner = Intake(
        arrivals=books.arrivals, work=books.work, pipelines=[pipeline("image")], wake=down, quiet_period_s=10
    )
    books.arrive("1")
    assert runner.run_once() == 1
    woken: list[str] = []
    again = Intake(
        arrivals=books.arrivals,
        work=books.work,
        pipelines=[pipeline("image")],
        wake=lambda name, _priority: woken.append(name),
        quiet_period_s=10,
    )
    books.clock.now += 21
    assert again.sweep() == 1
    assert len(woken) == 1


def test_the_identity_of_a_job_is_its_study_inputs_pipeline_and_model() -> None:
    entry = pipeline("image")
    same = job_id(entry, "1.2", ["1", "2"])
    assert same == job_id(entry, "1.2", ["2", "1"])
    others = [
        job_id(entry, "1.3", ["1", "2"]),
        job_id(entry, "1.2", ["1"]),
        job_id(pipeline("image", "q"), "1.2", ["1", "2"]),
        job_id(entry.model_copy(update={"model_sha256": "c" * 64}), "1.2", ["1", "2"]),
    ]
    assert same not in others
    assert len(set(others)) == 4
