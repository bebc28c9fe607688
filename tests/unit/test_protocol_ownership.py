"""The metadata machine serialises appends, answers a repeated request alike, and misses silent coordinators."""

from millrace.cluster.protocol import ownership as o
from millrace.errors import Fenced
from millrace.state.ledger import JobCreated, Ledger, Takeover, create_job
from millrace.state.store import open_store


class Metadata:
    def __init__(self, name: str, ledger: Ledger) -> None:
        self.machine = o.Ownership(lease_s=2.0)
        self.ledger = ledger
        self.answers: list[o.OwnershipCommand] = []

    def do(self, *events: o.OwnershipEvent) -> None:
        pending = list(events)
        while pending:
            for command in self.machine.handle(pending.pop(0)):
                match command:
                    case o.FoldLedger():
                        self.ledger.read()
                        pending.append(o.LedgerFolded("j", self.ledger.state, self.ledger.next_seq))
                    case o.WriteRecord():
                        pending.append(self._write(command))
                    case _:
                        self.answers.append(command)

    def _write(self, command: o.WriteRecord) -> o.OwnershipEvent:
        try:
            return o.RecordWritten("j", self.ledger.append(command.seq, command.record, command.writer))
        except Fenced:
            return o.RecordTaken("j", self.ledger.state, self.ledger.next_seq)


def metadata(name: str) -> Metadata:
    store = open_store(f"memory://ownership-{name}")
    create_job(store, JobCreated("j", "p", 8, 1), "client")
    return Metadata(name, Ledger(store, "j", name))


def request(writer: str, seq: int, epoch: int) -> o.AppendRequested:
    return o.AppendRequested("j", writer, seq, Takeover(epoch, writer), (writer, seq))


def test_of_two_appends_at_one_number_the_first_wins() -> None:
    it = metadata("race")
    it.do(request("one", 2, 1), request("two", 2, 1))
    first, second = it.answers
    assert isinstance(first, o.AnswerAppended) and first.requester == ("one", 2)
    assert isinstance(second, o.AnswerLost) and second.requester == ("two", 2)
    assert it.machine.jobs["j"].owner == "one"


def test_repeated_request_is_answered_as_the_first_time_also_by_a_new_process() -> None:
    it = metadata("again")
    it.do(request("one", 2, 1), request("one", 2, 1))
    later = Metadata("later", it.ledger)
    later.do(request("one", 2, 1))
    assert [type(a) for a in (*it.answers, *later.answers)] == 3 * [o.AnswerAppended]


def test_number_far_behind_or_ahead_is_lost() -> None:
    it = metadata("behind")
    it.do(request("one", 2, 1), request("two", 3, 2), request("one", 2, 1), request("one", 9, 3))
    assert [type(a).__name__ for a in it.answers] == 2 * ["AnswerAppended"] + 2 * ["AnswerLost"]


def test_state_is_read_on_for_who_asks() -> None:
    it = metadata("state")
    Ledger(it.ledger._store, "j", "else").read()
    it.do(request("one", 2, 1), o.StateRequested("j", "who"))
    answer = it.answers[-1]
    assert isinstance(answer, o.AnswerState) and answer.next_seq == 3 and answer.state.epoch == 1


def test_lease_is_the_present_coordinators_and_its_end_is_told_once() -> None:
    it = metadata("lease")
    it.do(request("one", 2, 1))
    it.do(o.LeaseRequested("j", "one", 1, 10.0, "a"), o.LeaseRequested("j", "old", 0, 10.0, "b"))
    assert [a.granted for a in it.answers if isinstance(a, o.AnswerLease)] == [True, False]
    it.do(o.TimePassed(11.9), o.TimePassed(12.0), o.TimePassed(13.0))
    assert [a for a in it.answers if isinstance(a, o.CoordinatorSilent)] == [o.CoordinatorSilent("j", "one")]
