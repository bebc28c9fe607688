"""The protocol of a job as pure state machines: an event goes in, commands come out. No clock, no I/O, no Ray.

Three machines, each driven by one adapter (an actor, or a node of the simulator)::

    commands = machine.handle(event)      # a tuple, to be carried out in order; each answer is another event

- `Coordinator` (coordinator.py), one per job: takeover, assignment, recovery, checkpoints, rescale, stop.
- `PartitionLifecycle` (lifecycle.py), one per partition and epoch: purge → restore → fence → publish → run.
- `Ownership` (ownership.py), one per cluster: the ledgers' appends, epochs, leases, the registry of jobs.

`BarrierAligner` (alignment.py) is the fourth: what an operator with several inputs does with barriers.

All events and commands are the frozen dataclasses of `messages.py`, which says who sends each and what the
adapter owes. In short, for an adapter:

*Coordinator.* Start with `LedgerRead(state, next_seq)`. `AppendRecord(seq, record)` is carried out by
`Ledger.append` (through the metadata actor): answer `RecordAppended(seq, state)`, or `RecordLost(seq)` on
`Fenced`; on `Unavailable` try the same append again, never another. `ReadLedger` → `LedgerRead`.
`ReadManifest` → `ManifestRead` or `ManifestDamaged`. `WriteManifest` → `ManifestWritten` (or nothing: the
checkpoint then times out). `DiscoverSplits` → `SplitsFound`. `StartPartition(start)` makes a process that feeds a new
`PartitionLifecycle` with it; `KillPartition` ends it, best effort. `Tell(partition, epoch, message)` delivers one
event to that partition, best effort: it may be lost, late or doubled. `PruneObjects` is best effort too.
Reports of partitions (`Running`, `Aligned`, `Durable`, `Published`, `Heartbeat`, `CheckpointFailed`) are
handed in as they come; `PartitionLost` when the process is known to be dead. `CheckpointDue` and `Tick(now)` come from
the adapter's timers, `RescaleRequested`, `SavepointRequested`, `SavepointDropped` and `StopRequested` from users.
`StopSelf` ends the process: another one leads, or is to.

A stopped job is led by nobody until whoever resumes it has appended `Resumed`: in one record the plan and the
checkpoint to go on with. That deposes a coordinator that still believes to lead, as a takeover does.

*Partition.* Start with `StartPartition`'s `PartitionStart` wrapped as `Begin`. Each command of `PurgeState`,
`RestoreState`, `FenceSink`, `ReadMarker`, `PublishOutbox`, `ConnectPeers`, `PersistCapture` is answered by the event of
the same name in the past tense, in its own time and in any order; what fails for good is `PartitionFailed`.
`InjectBarrier(n)`: the sources note positions and send the barrier; when it has passed the last sink the adapter says
`BarrierPassed(n)`. `Report(message)` goes to the coordinator, best effort. `StopSelf` ends the process and shows nothing
more outside.

Where an answer never comes, deadlines of the coordinator make a new owner: no message has to arrive.
"""
