"""A run over the machines of a Ray cluster: pieces of it go to workers, what they make goes into the one store here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import IclError, InputError, MissingExtraError, Problem
from ..progress import note, progress
from .loop import Stopped
from .manifest import differences
from .shards import Piece, do, merge, pieces, waiting_of

if TYPE_CHECKING:
    from .prepare import Prepared
    from .store import RunStore

TRIES = 3
"""A piece is begun so often before it is thought to be what its workers die of."""
HIRED = 20
"""Workers that may be lost while they get ready, for each that the cluster has room for."""
PATIENCE_S = 300.0
"""How long the cluster may have no worker at all, nor room for one. One that loads its model may take as long as it needs."""


class Worker:
    """In a process of the cluster. It prepares the suite itself, from the same files, and refuses if they are not the same."""

    def __init__(self, how: Mapping[str, Any], manifest: Mapping[str, Any], threads: int) -> None:
        self.how, self.manifest, self.threads = how, manifest, threads
        self.prepared: Prepared | None = None

    def ready(self) -> None:
        """Raises InputError if the suite, its data or a model differs from what the run was started with."""
        from .check import load_suite
        from .prepare import prepare

        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        how = self.how
        loaded = load_suite(how["suite"], overrides=how["overrides"], templates=how["templates"], plugins=how["plugins"])
        prepared = prepare(loaded, seed=how["seed"], limit=how["limit"], data_root=how["data_root"], cache=how["cache"])
        ours, theirs = ({k: v for k, v in each.items() if k != "machine"} for each in (self.manifest, prepared.manifest()))
        if found := differences(ours, theirs):
            head = Problem("a worker of the cluster does not see what this machine sees", "Give all machines the same files and packages.")
            raise InputError([head, *found])
        self.prepared = prepared

    def do(self, piece: Piece) -> dict[str, Any]:
        assert self.prepared is not None, "ready() comes first"
        return do(self.prepared, piece)


def run_on_ray(
    prepared: Prepared, store: RunStore, how: Mapping[str, Any], manifest: Mapping[str, Any], address: str, cpus: float, gpus: float
) -> None:
    """Do all that is not in the store yet on a Ray cluster. KeyboardInterrupt passes; what was committed before it stays.

    how: `suite`, `overrides`, `templates`, `plugins`, `seed`, `limit`, `data_root`, `cache`, as the run was given them; every machine must
    find the same files there. address: `ray` (the cluster this machine belongs to) or `ray://HOST:PORT`. cpus, gpus: each worker's share.
    The pieces of a worker that is lost are done again by others. Raises MissingExtraError without Ray, IclError if the cluster is not
    reached, Stopped if it has no worker left.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "spreading a run over a cluster") from None
    todo = pieces(prepared, store)
    if not todo:
        return
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(address="auto" if address == "ray" else address, log_to_driver=False, logging_level="error")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise IclError(f"no Ray cluster is reached at '{address}': {error}\n  Start one: ray start --head") from None
    try:
        _Crew(ray, prepared, store, (how, manifest, int(cpus)), {"num_cpus": cpus, "num_gpus": gpus}).work(todo)
    finally:
        if is_ours:
            ray.shutdown()


class _Crew:
    """The workers, and what each is at."""

    def __init__(self, ray: Any, prepared: Prepared, store: RunStore, given: tuple[Any, ...], share: Mapping[str, float]) -> None:
        self.ray, self.prepared, self.store, self.given = ray, prepared, store, given
        self.remote = ray.remote(**share)(Worker)
        self.share = share
        self.size = self._room()
        self.at: dict[Any, tuple[Any, Piece | None]] = {}
        """What is awaited -> (the worker, its piece; None while it gets ready)."""
        self.idle: list[Any] = []
        self.hired = 0

    def work(self, todo: list[Piece]) -> None:
        if not self.size:
            share = "no machine of the cluster has the share of CPUs and GPUs that a worker shall have"
            raise InputError(Problem(share, "Ask for less (--cpus, --gpus)."))
        waiting, queue, tries = waiting_of(todo), deque(todo), dict.fromkeys(todo, 0)
        for _ in range(min(self.size, len(todo))):
            self._hire()
        note(f"Ray: {len(todo)} pieces for {len(self.at)} workers")
        total = sum(len(self.prepared.tasks[key].test) for key in (piece.cell.task for piece in todo if piece.is_first))
        seen = time.monotonic()
        try:
            with progress("run", total, "predictions") as advance:
                while queue or any(piece is not None for _, piece in self.at.values()):
                    while queue and self.idle:
                        worker, piece = self.idle.pop(), queue.popleft()
                        self.at[worker.do.remote(piece)] = worker, piece
                    done, _ = self.ray.wait(list(self.at), num_returns=1, timeout=5.0) if self.at else ([], None)
                    is_silent = time.monotonic() - seen > PATIENCE_S and not any(piece for _, piece in self.at.values())
                    if not done and is_silent and not self._room():  # with room, a worker still loads its model: it has all the time
                        raise Stopped("the cluster has no worker left that could go on")
                    for reference in done:
                        seen = time.monotonic()
                        worker, at = self.at.pop(reference)
                        made = self._made(reference)
                        if made is not None:
                            self.idle.append(worker)
                            if at is not None:
                                advance(merge(self.prepared, self.store, at, made, waiting))
                            continue
                        if at is not None:
                            tries[at] += 1
                            if tries[at] >= TRIES:
                                raise Stopped(f"{at.cell}: {TRIES} workers were lost over it")
                            note(f"{at.cell}: its worker was lost; another one does it")
                            queue.appendleft(at)
                        self._hire()
        finally:
            for worker in [*self.idle, *(worker for worker, _ in self.at.values())]:
                self.ray.kill(worker)

    def _room(self) -> int:
        """How many workers the machines that the cluster has now could hold, were nobody else on it."""
        resources = self.ray.cluster_resources()
        counts = [int(resources.get(name, 0) // n) for name, n in (("CPU", self.share["num_cpus"]), ("GPU", self.share["num_gpus"])) if n]
        return min(counts, default=1)

    def _hire(self) -> None:
        self.hired += 1
        if self.hired > HIRED * self.size:
            raise Stopped("the cluster loses its workers before they get ready")
        worker = self.remote.remote(*self.given)
        self.at[worker.ready.remote()] = worker, None

    def _made(self, reference: Any) -> dict[str, Any] | None:
        """What a worker made, {} if it got ready; None if it was lost. Raises what went wrong in its work."""
        lost = self.ray.exceptions
        try:
            return self.ray.get(reference) or {}
        except lost.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, IclError) else IclError(f"a worker failed: {cause or error}") from None
        except (lost.RayActorError, lost.WorkerCrashedError, lost.NodeDiedError, lost.ObjectLostError, lost.OutOfMemoryError):
            return None
