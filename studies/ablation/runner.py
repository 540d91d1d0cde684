"""Experiments through DVC's queue, again and again until all of them have a result.

DVC knows nothing of "the rest of a study": what is done are the experiments of the current commit, what is under way
are the tasks of the queue, and the rest is queued. So an interrupted study goes on where it stood, and stages that
experiments share come out of the run-cache.

DVC lists what runs before what waits, so a task that starts between the two is on neither list: while somebody works,
only what two looks in a row do not find is queued. And a worker without a task is about to leave and may take with it
what it is given then: nothing is queued before those of an earlier study have left.

Two experiments that finish the same stage at the same moment can trip over each other in the run-cache (one takes the
other's half-written entry for damaged and deletes it); such a task fails, is queued once more, and finds its earlier
stages in the cache.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from studies.ablation.plan import Experiment
from studies.ablation.repository import Queue, Repository

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often an experiment is queued before the study gives up."""
PATIENCE_S = 60.0
"""After so long without a worker, none is coming: workers are started again, and running tasks have been abandoned."""
NOTHING = Queue({}, has_workers=False)
LOOKS = 5
"""How often a log is looked for."""
RAN = re.compile(r"^Running stage '([^'@]+)")
RESTORED = re.compile(r"^Stage '([^'@]+)[^']*' (?:is cached|didn't change)")


@dataclass
class StageCounts:
    """How often stages were computed, and how often their results were there already."""

    ran: Counter[str] = field(default_factory=Counter)
    restored: Counter[str] = field(default_factory=Counter)

    def add(self, log: str) -> None:
        """Count the stages in the log of an experiment."""
        for line in log.splitlines():
            if match := RAN.match(line):
                self.ran[match[1]] += 1
            elif match := RESTORED.match(line):
                self.restored[match[1]] += 1


class Study:
    """The experiments of one commit."""

    def __init__(
        self, repository: Repository, experiments: Sequence[Experiment], patience_s: float = PATIENCE_S
    ) -> None:
        self.repository = repository
        self.experiments = {experiment.name: experiment for experiment in experiments}
        self.patience_s = patience_s
        self._attempts: Counter[str] = Counter()
        self._missing: set[str] = set()
        self._checked: set[str] = set()
        self._last_worker = float("-inf")
        self._begun = False

    def run(self, on_change: Callable[[dict[str, str]], None], poll_s: float) -> dict[str, str]:
        """Run what has no result yet; returns the commit of every experiment by its name.

        Raises:
            RuntimeError: an experiment failed too often, or somebody committed meanwhile.
            ValueError: a result of this name belongs to another plan.
        """
        last: dict[str, str] = {}
        self._start = time.monotonic()
        base = self.repository.commit()
        while True:
            if (now := self.repository.commit()) != base:
                raise RuntimeError(
                    f"the checkout went from {base[:7]} to {now[:7]} while experiments of the former ran; "
                    f"`git checkout {base[:7]}` and run this again to go on"
                )
            queue, done = NOTHING, self._done()
            if len(done) < len(self.experiments):
                queue = self.repository.queue()
                done = self._done()  # after the queue: who has succeeded by then has a result now
            state = {name: queue.tasks.get(name, "missing") for name in self.experiments if name not in done}
            shown = dict.fromkeys(done, "done") | state
            if shown != last:
                on_change(shown)
                last = shown
            if not state:
                return done
            self._advance(state, queue)
            time.sleep(poll_s)

    def count_stages(self, counts: StageCounts, poll_s: float) -> None:
        """Count what was computed, over the logs that DVC still has; says whose it has not.

        A result is there before its worker has closed DVC's books, which cannot be read meanwhile.
        """
        unread = list(self.experiments)
        for look in range(LOOKS):
            time.sleep(poll_s if look else 0)
            unread = [name for name in unread if not self._count(name, counts)]
            if not unread:
                return
        logger.warning("DVC has no log of %s; what they computed is not counted", ", ".join(unread))

    def _count(self, name: str, counts: StageCounts) -> bool:
        try:
            counts.add(self.repository.log(name))
        except RuntimeError:
            return False
        return True

    def _done(self) -> dict[str, str]:
        """Commits of what has ended well, each looked at once."""
        found = self.repository.finished()
        done = {name: found[name] for name in self.experiments if name in found}
        for name in done.keys() - self._checked:
            if fault := self.experiments[name].differs(self.repository.params(done[name])):
                raise ValueError(f"{name} was run with {fault}; `dvc exp remove {name}` and run this again")
            self._checked.add(name)
        return done

    def _advance(self, state: dict[str, str], queue: Queue) -> None:
        """Queue what is in nobody's hands and see to it that somebody works."""
        now = time.monotonic()
        if queue.has_workers:
            self._last_worker = now
        nobody = now - self._last_worker >= self.patience_s
        if not self._begun and queue.has_idle_workers and now - self._start < self.patience_s:
            return
        missing = {name for name, status in state.items() if status == "missing"}
        is_still = not self._begun and not queue.has_workers
        gone = missing if is_still else missing & self._missing
        self._missing = missing - gone  # which are queued now, and may start before the next look
        for name, status in state.items():
            if status == "Running" and nobody and self._last_worker > float("-inf"):
                logger.warning("%s was abandoned by its worker", name)
                self.repository.give_up(name)
            elif status in ("Failed", "Success") or name in gone:
                self._enqueue(name, known=name not in gone)
        if (nobody or not self._begun) and gone == missing:
            # Those of an earlier study may be fewer; DVC starts only what is missing.
            self.repository.start_workers()
            self._begun = True
            self._last_worker = time.monotonic()

    def _enqueue(self, name: str, *, known: bool) -> None:
        if self._attempts[name] == ATTEMPTS:
            raise RuntimeError(f"{name} failed {ATTEMPTS} times; see `dvc queue logs {name}`")
        self._attempts[name] += 1
        if known:
            self.repository.forget(name)
        self.repository.enqueue(self.experiments[name])
