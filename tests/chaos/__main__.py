"""`python -m tests.chaos`: Kafka to Kafka on a simulated Ray cluster under violence; exit code 1 where a row is not exact."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tests.chaos.nodes import Nodes
from tests.chaos.report import COLOURS, refused, write_report
from tests.chaos.verdict import Verdict, judge
from tests.chaos.violence import RESCALES, Violence
from tests.chaos.watching import Watcher
from tests.chaos.workload import Feeder, Topics, aggregating, copying, windows_of
from tests.e2e.broker import Broker, missing

from millrace.errors import MillraceError
from millrace.submitting import job_spec

OUT = Path("out/chaos")
AGGREGATES, COPIES = "aggregates", "copies"
STALL_S = 180.0
"""A job that decides nothing for so long is stuck, whatever was done to it."""
RETRY_S = 2.0
QUIET_S = 8.0
PATIENCE = 4
"""So many deeds in a row are done though nothing was decided between."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `every` is the mean time between two deeds in s."""

    seed: int
    events: int
    minutes: float
    nodes: int
    partitions: int
    every: float
    interval: float
    deeds: tuple[str, ...]
    out: Path

    @property
    def command(self) -> str:
        """How to run the same again."""
        text = (
            f"python -m tests.chaos --seed {self.seed} --events {self.events} --minutes {self.minutes:g} "
            f"--nodes {self.nodes} --partitions {self.partitions} --every {self.every:g} --interval {self.interval:g}"
        )
        return text + (f" --deeds '{','.join(self.deeds)}'" if self.deeds else "")


def read_options(arguments: list[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=None, help="what is done to whom; drawn where it is not given"
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=8.0, help="how long the violence lasts")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=6, help="of the topic of events")
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between two deeds")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two checkpoints")
    parser.add_argument("--deeds", default="", help=f"these in turn and no others: {', '.join(COLOURS)}")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 31)
    deeds = tuple(deed.strip() for deed in given.deeds.split(",") if deed.strip())
    for deed in deeds:
        if deed not in COLOURS:
            parser.error(f"there is no deed {deed!r}; there are {', '.join(COLOURS)}")
    fields = {name: getattr(given, name) for name in vars(given) if name not in ("seed", "deeds")}
    return Options(seed=seed, deeds=deeds, **fields)


class Run:
    """One run from the first topic to the verdict."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.notes: list[str] = []
        self._services = ExitStack()
        try:
            self._begin()
        except BaseException:
            self._services.close()
            raise

    def _begin(self) -> None:
        options = self.options
        self.broker = Broker()
        self._services.callback(self.broker.close)
        self.topics = Topics.make(self.broker, options.partitions)
        self.nodes = Nodes(options.nodes)
        self._services.callback(self.nodes.close)
        self._submit(COPIES, copying(self.broker, self.topics))
        self._submit(AGGREGATES, aggregating(self.broker, self.topics))
        rate = options.events / (options.minutes * 60 * 0.9)
        self.feeder = Feeder(self.broker, self.topics.events, options.partitions, options.events, rate)
        counted = {self.topics.copies: 4, self.topics.totals: 3, self.topics.windows: 3}
        self.watcher = Watcher(self.broker, counted, [COPIES, AGGREGATES], time.monotonic())
        self.violence = Violence(self.nodes, self.broker, self.watcher, options.seed)

    def _submit(self, job: str, sql: str) -> None:
        spec = job_spec(
            sql,
            job=job,
            partitions=2,
            checkpoint_interval=self.options.interval,
            variables={},
            settings={"batch.max_rows": "4096"},
        )
        self.nodes.cluster.submit(spec, f"file://{self.nodes.folder}/store", num_cpus=0.5)

    def torment(self) -> None:
        """Produce, and do violence for as long as was asked; raises TimeoutError where a job is stuck."""
        options, rng = self.options, random.Random(self.options.seed ^ 0x5EED)
        self.watcher.start()
        self._await(
            lambda: all(seen.status is not None for seen in self.watcher.jobs.values()), "jobs to run"
        )
        self.feeder.start()
        begun = time.monotonic()
        length = options.minutes * 60
        planned = self._planned(length)
        in_a_row = 0
        with self._progress() as progress:
            bar = progress.add_task("events", total=options.events)
            at = begun + options.every
            while time.monotonic() - begun < length:
                progress.update(bar, completed=self.feeder.sent)
                self._check_stall()
                self.nodes.tend()
                time.sleep(0.2)
                if planned and time.monotonic() - begun >= planned[0][0]:
                    due, *deed = planned.pop(0)
                    if not self._say(*deed):
                        planned = sorted([*planned, (due + RETRY_S, *deed)])
                if time.monotonic() < at or options.deeds:
                    continue
                at = time.monotonic() + rng.uniform(0.4, 1.6) * options.every
                struck = max(self.violence.attacks, key=lambda a: a.at).at if self.violence.attacks else 0.0
                decided = min(seen.decided_at for seen in self.watcher.jobs.values()) - self.watcher.begun
                in_a_row = 0 if decided > struck else in_a_row + 1
                if in_a_row <= PATIENCE:
                    self._say(None)
            progress.update(bar, completed=self.feeder.sent)

    def _planned(self, length: float) -> list[tuple[float, str | None, int]]:
        """What happens for certain: what was asked for, or both rescales, the broker's restart, a zombie of each kind."""
        deeds = self.options.deeds
        if deeds:
            step = length / (len(deeds) + 1)
            return [(step * (i + 1), deed, RESCALES[0]) for i, deed in enumerate(deeds)]
        return sorted(
            [
                (length * 0.15, "zombie", 0),
                (length * 0.30, "rescale", RESCALES[0]),
                (length * 0.45, "broker", 0),
                (length * 0.55, "zombie node", 0),
                (length * 0.65, "rescale", RESCALES[1]),
                (length * 0.75, "zombie", 0),
            ]
        )  # type: ignore[return-value]

    def _say(self, kind: str | None, partitions: int = 0) -> bool:
        """Do it and tell; whether it could be done."""
        if kind == "rescale":
            done = [self.violence.rescale(job, partitions) for job in (COPIES, AGGREGATES)]
        else:
            one = self.violence.strike(kind)
            done = [] if one is None else [one]
        for attack in done:
            self.console.print(f"[dim]{attack.at:7.1f} s[/dim]  [bold]{attack.kind}[/bold]  {attack.what}")
        return bool(done)

    def settle(self) -> None:
        """Wait until everything has come, and end the jobs in good order."""
        options = self.options
        self._await(lambda: self.violence.wait(0.1), "deeds to end")
        self._await(self.feeder.done.is_set, "events to be produced")
        windows = len(windows_of(options.events))
        self._await(lambda: self.watcher.rows[self.topics.copies] >= options.events, "copies")
        self._await(lambda: self.watcher.rows[self.topics.windows] >= windows, "windows")
        # Ends of transactions count as rows there: more may come.
        self._await(self._quiet, "quiet")
        for job in (COPIES, AGGREGATES):
            try:
                self.notes.append(f"job {job} ended: {self.nodes.cluster.job(job).stop(120)}")
            except MillraceError as error:
                self.notes.append(f"job {job} did not stop: {error.message}")

    def _quiet(self) -> bool:
        """Whether all jobs run and no topic has grown for a while."""
        seen = [s for s in self.watcher.samples if s.at > time.monotonic() - self.watcher.begun - QUIET_S]
        running = all(phase == "running" for s in seen for phase in s.phases.values())
        return len(seen) > 3 and running and all(s.rows == seen[0].rows for s in seen)

    def close(self) -> None:
        """End everything."""
        self.violence.over.set()
        self.violence.wait(90)
        self.feeder.stop()
        self.watcher.stop()
        self._services.close()

    def _await(self, done: object, what: str) -> None:
        self.console.print(f"waiting for {what}")
        since = time.monotonic()
        while not done():  # type: ignore[operator]
            self._check_stall(since)
            self.nodes.tend()
            time.sleep(0.2)

    def _check_stall(self, since: float = 0.0) -> None:
        now = time.monotonic()
        for job, seen in self.watcher.jobs.items():
            if now - max(seen.decided_at, since) > STALL_S:
                raise TimeoutError(f"job {job} has decided nothing for {STALL_S:.0f} s: {seen.status}")
        if since and now - since > 2 * STALL_S:
            raise TimeoutError("that took too long")

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.console)


def main(arguments: list[str]) -> int:
    """Run, judge, report; the exit code."""
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    options, console = read_options(arguments), Console()
    console.print(f"seed {options.seed}: {options.command}")
    run = Run(options, console)
    stuck = None
    try:
        try:
            run.torment()
            run.settle()
        except TimeoutError as error:
            stuck = str(error)
        verdict = judge(run.broker, run.topics, run.feeder.count) if run.feeder.done.is_set() else Verdict(0)
        if stuck is not None:
            verdict.faults.insert(0, f"no progress: {stuck}")
        refusals = run.nodes.refusals()
        shutil.rmtree(options.out, ignore_errors=True)
        run.nodes.keep_logs(options.out / "logs")
        write_report(
            options.out,
            options.command,
            verdict,
            run.violence.attacks,
            run.watcher.samples,
            refusals,
            run.notes,
        )
    finally:
        run.close()
    told = ", ".join(f"{len(found)} at the {place}" for place, found in refused(refusals).items())
    console.print(f"{len(run.violence.attacks)} deeds; owners that came too late were refused: {told}")
    for fault in verdict.faults:
        console.print(f"[red]{fault}[/red]")
    outcome = "[green]clean[/green]" if verdict.clean else f"[red]NOT CLEAN, seed {options.seed}[/red]"
    console.print(
        f"{outcome}: {verdict.events:,} events, {verdict.lost} lost, {verdict.doubled} doubled, "
        f"{verdict.windows:,} windows, {verdict.totals} totals; {options.out / 'report.md'}"
    )
    return 0 if verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
