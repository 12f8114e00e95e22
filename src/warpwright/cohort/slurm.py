"""Workers in jobs of SLURM, which dask-jobqueue asks for: what a person can say of them, and a cluster of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from warpwright.config import from_mapping, read_mapping
from warpwright.errors import BadInput, Failed

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster
    from tornado.ioloop import PeriodicCallback

__all__ = ["Jobs", "read_jobs", "slurm_cluster"]

AGAIN = 20.0  # seconds, after which jobs that ended (at their time limit, say) are asked for again
MEMORY = re.compile(r"\d+(\.\d+)? ?[KMGT](i?B)?")
TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")  # minutes, H:M:S, D-H:M:S


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Jobs of SLURM that hold the workers of a cohort.

    Args:
        jobs: how many.
        cores: processors of a job; each is a worker that runs one pair at a time.
        memory: of a job, "16GB".
        walltime: its time limit as SLURM has it, "04:00:00"; jobs that reach it are asked for again.
        queue: partition.
        account: who is charged.
        directives: more options of sbatch, each as one text: "--constraint=avx2".
        prologue: lines of shell that run in a job before its workers: "module load python".
        interface: network interface over which scheduler and workers talk: "ib0".
        logs: folder for the jobs' outputs, which must be there for the jobs, too.
        python: that of the jobs; the one that runs this by default.
    """

    jobs: int
    memory: str
    walltime: str
    cores: int = 1
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str | None = None
    logs: str | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.cores < 1:
            raise BadInput(f"jobs and cores must be at least 1, got {self.jobs} and {self.cores}")
        if not MEMORY.fullmatch(self.memory):
            raise BadInput(f"memory must be a number with a unit such as 16GB, got {self.memory!r}")
        if not TIME.fullmatch(self.walltime):
            raise BadInput(f"walltime must be as SLURM has it, 04:00:00 say, got {self.walltime!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str) and (not text.strip() or not text.isprintable()) for text in texts):
                raise BadInput(f"{field.name} must be text in one line, got {value!r}")


def read_jobs(path: Path) -> Jobs:
    """What a TOML file says of the jobs.

    Raises:
        BadInput: it cannot be read, or has a key or value that is none of `Jobs`.
    """
    return from_mapping(Jobs, read_mapping(path), where=str(path))


@contextmanager
def slurm_cluster(jobs: Jobs) -> Iterator[SLURMCluster]:
    """A scheduler in this process whose workers are jobs of SLURM; they are cancelled at the end.

    Raises:
        Failed: dask-jobqueue or SLURM is not here, or SLURM refuses the jobs.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
        from tornado.ioloop import PeriodicCallback
    except ImportError:
        raise Failed('--slurm needs dask-jobqueue, which is not installed: pip install "warpwright[slurm]"') from None
    if shutil.which("sbatch") is None:
        raise Failed("there is no sbatch on this machine, expected one from which jobs of SLURM can be sent")
    cluster = SLURMCluster(
        queue=jobs.queue,
        account=jobs.account,
        cores=jobs.cores,
        processes=jobs.cores,
        memory=jobs.memory,
        walltime=jobs.walltime,
        job_extra_directives=list(jobs.directives),
        job_script_prologue=list(jobs.prologue),
        interface=jobs.interface,
        log_directory=jobs.logs,
        python=jobs.python,
        job_name="warpwright",
        worker_extra_args=["--memory-limit", "0", "--no-dashboard"],  # SLURM sees to the memory
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        silence_logs="critical",
    )
    with cluster:
        again = PeriodicCallback(partial(_ask_again, cluster, jobs.jobs), 1000 * AGAIN)
        try:
            cluster.sync(_begin, cluster, jobs.jobs, again)
            yield cluster
        except Refused as error:
            raise Failed(f"SLURM does not take the jobs ({error}), expected options that sbatch takes") from error
        finally:
            cluster.sync(_stop, cluster, again)


class Refused(Exception):
    """What `sbatch` says when it takes no job."""


async def _begin(cluster: SLURMCluster, count: int, again: PeriodicCallback) -> None:
    """Ask for so many jobs, and look after them from then on.

    Raises:
        Refused: they are refused.
    """
    cluster.scale(jobs=count)
    await _asked(cluster)
    again.start()


async def _asked(cluster: SLURMCluster) -> None:
    """Wait until all jobs have been sent; one that was refused may be sent once more.

    Raises:
        Refused: one is refused.
    """
    try:
        await cluster
        for job in cluster.workers.values():
            await job
    except (RuntimeError, ValueError, OSError) as error:  # a failure, an answer without number, no sbatch
        said = str(error).partition("stderr:")[2] or str(error)
        raise Refused(" ".join(said.split())) from error


async def _ask_again(cluster: SLURMCluster, count: int) -> None:
    """Have so many jobs again; a refusal may be over the next time."""
    cluster.scale(jobs=count)
    with suppress(Refused):
        await _asked(cluster)


async def _stop(cluster: SLURMCluster, again: PeriodicCallback) -> None:
    """Ask for nothing more, so that the cluster can close; it wants to hear of jobs that were never sent."""
    from distributed.core import Status

    again.stop()
    for job in cluster.workers.values():
        if job.status is Status.created:
            job.status = Status.failed
