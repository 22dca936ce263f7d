"""What becomes of jobs and seats of a cluster, with a cluster that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ablations.config import RunStopped  # noqa: E402
from ablations.config.options import EngineOptions  # noqa: E402
from ablations.engine.devices import DeviceInfo  # noqa: E402
from ablations.engine.job import Job  # noqa: E402
from ablations.engine.ray_engine import MOST_LOSSES, RayEngine  # noqa: E402
from ablations.engine.ray_seats import SeatHandle, Seats  # noqa: E402
from ablations.engine.seat import SeatInfo  # noqa: E402

INFO = SeatInfo(DeviceInfo("cpu", 900.0), {"source_hash": "ours", "versions": {"ufo-ablations": "0.1"}, "machine": {}})
DIED = ray.exceptions.ActorDiedError


class Cluster:
    """A cluster whose actors do nothing, with two nodes of two and of one core."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.killed: list[Any] = []
        self.asked: list[dict[str, float]] = []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_job_id=lambda: "01")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0, "memory": 4 * 2**30}},
            {"NodeID": "b", "Alive": True, "Resources": {"CPU": 1.0}},
            {"NodeID": "c", "Alive": False, "Resources": {"CPU": 8.0}},
        ]

    def remote(self, _class: type) -> Any:
        def options(**needs: float) -> Any:
            self.asked.append(needs)
            call = SimpleNamespace(remote=lambda *_, **__: object())
            actor = SimpleNamespace(located=call, close=call, advance=call)
            return SimpleNamespace(remote=lambda **_: actor)

        return SimpleNamespace(options=options)

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


def seats(cluster: Cluster, notes: list[str] | None = None, *, is_cuda: bool = False, **options: Any) -> Seats:
    note = ([] if notes is None else notes).append
    return Seats(cluster, EngineOptions(**options), is_cuda=is_cuda, threads_per_cell=1, note=note)


def start(handle: SeatHandle, node: str = "a") -> None:
    handle.info, handle.node, handle.answer = INFO, node, None


def started(engine: RayEngine) -> SeatHandle:
    start(engine._seats.all[0])
    return engine._seats.all[0]


def engine(cluster: Cluster, notes: list[str]) -> RayEngine:
    made = RayEngine(EngineOptions(), is_cuda=False, threads_per_cell=1, plugins=(), note=notes.append)
    made._ray, made._seats, made._sources, made._num_left = cluster, seats(cluster), "ours", 3
    made._seats.make_first(3)
    return made


@pytest.mark.parametrize(
    ("options", "is_cuda", "number"),
    [({}, False, 3), ({"jobs_per_gpu": 4}, True, 2), ({}, True, 1), ({"memory_per_cell_mib": 3072}, False, 1)],
)
def test_the_first_seats_are_as_many_as_living_nodes_have_room_for(options, is_cuda, number):
    cluster = Cluster()
    made = seats(cluster, is_cuda=is_cuda, **options)
    made.make_first(9)
    assert len(made.all) == number
    assert cluster.asked[0].get("num_gpus") == (1 / options.get("jobs_per_gpu", 1) if is_cuda else None)


def test_one_seat_more_is_asked_for_while_cells_wait_and_all_are_given_back():
    cluster = Cluster()
    made = seats(cluster)
    made.make_first(1)
    made.keep_one_coming(5)
    assert len(made.all) == 1  # it has not started yet
    start(made.all[0])
    made.all[0].answer = object()  # it works
    made.keep_one_coming(5)
    made.keep_one_coming(5)
    assert len(made.all) == 2
    made.give_back(1)
    assert (len(made.all), len(cluster.killed)) == (1, 1)  # the one that had not started
    made.make()
    start(made.all[1])
    made.give_back(1)
    assert [seat.is_closing for seat in made.all] == [True, False]
    assert made.free is made.all[1]


def test_the_user_is_told_once_that_no_node_has_room(monkeypatch):
    notes: list[str] = []
    made = seats(Cluster(), notes, is_cuda=True)
    made.make_first(1)
    monkeypatch.setattr("ablations.engine.ray_seats.WAITING_S", -1.0)
    for _ in range(3):
        made.keep_one_coming(1)
    assert notes == ["waiting for a node of the cluster that has room for a cell (num_cpus 1, num_gpus 1)"]


def test_a_seat_gives_its_share_of_the_memory_and_says_where_it_is():
    made = seats(Cluster())
    made.make_first(3)
    start(made.all[0])
    placement = made.placement(made.all[0], num_cells=1)
    assert (placement.memory_mib, placement.workers, placement.mps) == (450.0, 0, False)
    assert placement.origin["ran_on"] == {"engine": "ray", "node": "a", "job": "01"}
    start(made.all[1], node="gone")
    assert made.placement(made.all[1], num_cells=1).memory_mib == 900.0


def test_a_job_that_loses_its_seat_waits_for_another_one_and_fails_at_the_last_loss():
    notes: list[str] = []
    made = engine(Cluster(), notes)
    job = Job(members=[object()], placement=made._seats.placement(started(made), num_cells=1))
    for number in range(1, MOST_LOSSES + 1):
        made._seats.make()
        seat = made._seats.all[-1]
        seat.job = job
        ended = made._lose(seat, DIED())
        assert seat not in made._seats.all
        if number < MOST_LOSSES:
            assert ended is None
            assert list(made._lost) == [job]
            assert not made.has_room
            made._lost.clear()
    assert ended.job is job
    assert ended.results == ("killed", "3 nodes or their processes died while it ran")
    assert notes == ["a node or its process was lost (ActorDiedError): 1 cell will start again elsewhere"] * 2


def test_a_node_without_memory_is_the_cells_failure():
    made = engine(Cluster(), [])
    made._seats.all[0].job = job = object()
    ended = made._lose(made._seats.all[0], ray.exceptions.OutOfMemoryError("node running low on memory"))
    assert (ended.job, ended.results[0]) == (job, "oom")


def test_seats_that_never_start_stop_the_run():
    made = engine(Cluster(), [])
    for _ in range(MOST_LOSSES - 1):
        assert made._lose(made._seats.all[0], DIED()) is None
    with pytest.raises(RunStopped, match="no process starts on the cluster's nodes: The actor died"):
        made._lose(made._seats.all[0], DIED())


def test_a_seat_that_dies_as_it_closes_is_only_dropped():
    cluster = Cluster()
    made = engine(cluster, [])
    seat = made._seats.all[0]
    seat.is_closing = True

    def get(_answer: object) -> None:
        raise DIED

    cluster.get = get
    assert made._hear(seat) is None
    assert seat not in made._seats.all


def test_other_code_on_a_node_stops_the_run():
    made = engine(Cluster(), [])
    with pytest.raises(RunStopped, match=r"other code \(version 0.1\): install the same on every node"):
        made._check(SeatInfo(INFO.device, {**INFO.origin, "source_hash": "theirs"}))
    made._check(INFO)
