"""Pairs spread over the workers of Dask distributed: a cluster on this machine, any scheduler that runs, jobs of SLURM.

A few pairs a worker are handed over at a time and forgotten as soon as they are done, so that what the scheduler and this
process hold does not grow with the cohort.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from warpwright.cohort.pair import record_failure, run_pair
from warpwright.cohort.run import Engine, Task
from warpwright.cohort.slurm import Jobs, slurm_cluster
from warpwright.errors import BadInput, Failed

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["require_dask", "workers_of_scheduler", "workers_of_slurm", "workers_on_this_machine"]

LOG = logging.getLogger(__name__)
PAUSE = 0.02  # seconds between two looks at whether a pair is done
AHEAD = 2  # pairs handed over for each worker
REFRESH = 5.0  # seconds, after which the workers are counted again
ALONE = 60.0  # seconds without any worker, after which that is told
GIVEN_UP = 600.0  # and after which a scheduler that somebody else runs is left
CONNECT = 10  # seconds to find the scheduler, and to find it again
DEATHS = 3  # workers that may end while they run a pair; one more, and it is the pair's fault
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
SETTINGS = {
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,  # Dask's own gives memory back at once: 4 to 9 % more CPU time here
    "distributed.scheduler.allowed-failures": DEATHS,
    "distributed.scheduler.worker-saturation": 1.0,  # pairs wait at the scheduler, not behind another pair
    "distributed.admin.low-level-log-length": 100,  # Dask keeps thousands of notes for its developers, of every pair
    "distributed.scheduler.worker-ttl": None,  # a pair may keep the interpreter busy for long
    "distributed.scheduler.http.routes": [],  # no page of its own
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,  # no look at what a worker does a hundred times a second
    "distributed.worker.preload": ["warpwright.cohort.deaf"],
    "distributed.comm.retry.count": 0,
    "distributed.comm.timeouts.connect": CONNECT,
}


def require_dask() -> None:
    """That Dask distributed is installed.

    Raises:
        Failed: it is not.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise Failed(
            'several workers need Dask distributed, which is not installed: pip install "warpwright[cohort]", or --shard 1/1'
            " runs one pair after the other without it"
        ) from None


def workers_on_this_machine(workers: int) -> Engine:
    """An engine: processes of one thread each, that nobody outside this machine can talk to.

    Args:
        workers: how many.

    Raises:
        BadInput: fewer than one.
        Failed: Dask is not installed.
    """
    if workers < 1:
        raise BadInput(f"--workers must be at least 1, got {workers}")
    require_dask()

    def engine(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
        with _quiet(), _cluster(workers) as client:
            yield from _flow(client, iter(tasks), "the workers' scheduler")

    return engine


def workers_of_scheduler(address: str) -> Engine:
    """An engine: the workers of a scheduler that runs already. They must see the same files and have this package.

    Args:
        address: of the scheduler, `tcp://HOST:PORT`.

    Raises:
        Failed: Dask is not installed.
    """
    require_dask()

    def engine(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
        with _quiet(), _connection(address) as client:
            yield from _flow(client, iter(tasks), f"the scheduler {address}", patience=GIVEN_UP)

    return engine


def workers_of_slurm(jobs: Jobs) -> Engine:
    """An engine: workers in jobs of SLURM, which run until the work is done or this process ends.

    Args:
        jobs: which ones.

    Raises:
        Failed: Dask is not installed.
    """
    require_dask()

    def engine(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
        with _quiet(), _jobs(jobs) as client:
            yield from _flow(client, iter(tasks), "the scheduler of the jobs")

    return engine


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Dask's remarks on standard error: what matters is said in one sentence."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    from dask.config import set as configured
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        stack.enter_context(configured(SETTINGS))
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="warpwright-cohort-", ignore_cleanup_errors=True))
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port, for requests between processes
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,  # `register` asks for memory before it begins
            silence_logs=logging.CRITICAL,
            local_directory=place,
        )
        stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster, timeout=CONNECT))


@contextmanager
def _jobs(jobs: Jobs) -> Iterator[Client]:
    from dask.config import set as configured
    from distributed import Client

    settings = {name: value for name, value in SETTINGS.items() if ".worker." not in name and ".nanny." not in name}
    with configured(settings), slurm_cluster(jobs) as cluster, Client(cluster, timeout=CONNECT) as client:
        yield client


@contextmanager
def _connection(address: str) -> Iterator[Client]:
    from dask.config import set as configured
    from distributed import Client

    with configured({"distributed.comm.timeouts.connect": CONNECT, "distributed.comm.retry.count": 0}):
        try:
            client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:  # a ValueError for what is no address
            raise Failed(f"the scheduler {address} cannot be reached ({' '.join(str(error).split())})") from None
        with client:
            yield client


def _flow(client: Client, tasks: Iterator[Task], name: str, patience: float = math.inf) -> Iterator[Mapping[str, Any]]:
    """Records as they come, with so many pairs handed over that no worker waits.

    Args:
        client: of the scheduler.
        tasks: one a pair.
        name: of the scheduler, for a person.
        patience: seconds without any worker after which the work ends.

    Raises:
        Failed: the scheduler is gone or without workers, or its workers cannot run pairs at all.
    """
    from distributed import as_completed

    running: dict[str, Task] = {}
    waiting, watch = as_completed(loop=client.loop), Watch(client, name, patience)
    try:
        while True:
            width = AHEAD * max(1, watch.workers())
            while len(running) < width and (task := next(tasks, None)) is not None:
                future = client.submit(run_pair, task, pure=False)
                running[str(future.key)] = task
                waiting.add(future)
            if not running:
                return
            while not waiting.has_ready():
                time.sleep(PAUSE)
                watch.workers()
            future = next(waiting)
            record = _record(future, running.pop(str(future.key)), name)
            future.release()
            yield record
    except (OSError, TimeoutError) as error:
        raise Failed(_gone(name)) from error


class Watch:
    """How many workers there are, looked at now and then; their absence is told, and in the end a failure."""

    def __init__(self, client: Client, name: str, patience: float) -> None:
        self.client, self.name, self.patience = client, name, patience
        self.count, self.looked = 0, -math.inf
        self.seen, self.told = time.monotonic(), False

    def workers(self) -> int:
        """The number, a few seconds old at most.

        Raises:
            Failed: there was none for too long.
        """
        now = time.monotonic()
        if now - self.looked <= REFRESH:
            return self.count
        self.count, self.looked = len(cast(Sized, self.client.nthreads())), now
        if self.count:
            self.seen, self.told = now, False
        elif now - self.seen > self.patience:
            raise Failed(
                f"{self.name} had no workers for {self.patience:g} s, expected some: the same command goes on from there"
            )
        elif now - self.seen > ALONE and not self.told:
            LOG.warning("%s has had no workers for %g s: waiting for some", self.name, ALONE)
            self.told = True
        return self.count


def _record(future: Future[Any], task: Task, name: str) -> Mapping[str, Any]:
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        deaths = error.allowed_failures + 1
        return record_failure(task, f"{deaths} workers ended while they ran it, expected them to have the memory it needs")
    except CancelledError:
        raise Failed(_gone(name)) from None
    except (OSError, TimeoutError):
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise Failed(f"the workers of {name} cannot run pairs ({told}), expected this version of Warpwright there") from error


def _gone(name: str) -> str:
    return f"{name} is gone: what was done is kept, and the same command goes on from there"
