"""Jobs on a Ray cluster, or on this machine under Ray: Ray Data streams them through actors that hold the models.

Every actor keeps its models in a process that may be killed (`mcpipe.execution.workers.Pool`), so that a clip that
hangs or crashes is refused by name on a cluster, too. All machines see the project at the same path.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcpipe.core.records import Rejection
from mcpipe.execution.workers import Job, Outcome, Pool, Work

JOBS_PER_BLOCK = 16
"""Jobs that an actor takes at a time."""
NOWHERE = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}
"""Proxy settings that send plain HTTP to a closed port of this machine, without the environment's exceptions."""


@contextmanager
def on_ray(work: Work, workers: int, clip_seconds: float) -> Iterator[Callable[[Iterable[Job]], Iterator[Outcome]]]:
    """Jobs in ``workers`` actors of Ray Data.

    Raises:
        ValueError: Ray is not installed.

    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("MCPIPE_ENGINE=ray needs Ray; docs/cluster.md has the command") from error
    if not ray.is_initialized():
        with _no_cloud_lookup():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        rows = [{"job": job} for job in jobs]
        if not rows:
            return
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / workers)
        actors = ray.data.ActorPoolStrategy(size=workers)
        blocks = max(1, len(rows) // JOBS_PER_BLOCK)
        done = ray.data.from_items(rows, override_num_blocks=blocks).map(
            _Actor,
            fn_constructor_args=(work, clip_seconds, str(Path.cwd())),
            compute=actors,
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in done.iter_rows():
            if row["fault"]:
                raise ValueError(row["fault"])
            yield row["key"], Rejection(row["reason"], row["detail"]) if row["reason"] else None

    yield run


@contextmanager
def _no_cloud_lookup() -> Iterator[None]:
    """Keep a Ray that starts here from asking the network in which cloud it runs, which no switch of Ray's stops.

    Its processes inherit a proxy that does not exist; no work of mcpipe goes over HTTP.
    """
    before = {name: os.environ.get(name) for name in NOWHERE}
    os.environ.update(NOWHERE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Actor:
    """Does jobs in a process of its own."""

    def __init__(self, work: Work, clip_seconds: float, folder: str) -> None:
        os.chdir(folder)
        self._pool: Pool | None = None
        self._fault = ""
        try:
            self._pool = Pool(work, 1, clip_seconds)
        except (ValueError, OSError) as error:
            self._fault = str(error)

    def __call__(self, row: dict[str, Job]) -> dict[str, str]:
        """What came of a job: its key and what went wrong with it, or the fault that ends the run."""
        job = row["job"]
        answer = {"key": job.item.key, "reason": "", "detail": "", "fault": self._fault}
        if self._pool is not None:
            try:
                _, failure = self._pool.outcome(job, self._pool.begin(job))
            except (ValueError, OSError) as error:
                return answer | {"fault": str(error)}
            if failure is not None:
                return answer | {"reason": failure.reason, "detail": failure.detail}
        return answer
