"""Settings of jobs on a cluster: taken from SET and from options, and refused where they will not do."""

import pytest

from millrace.cluster.exchange.security import ExchangeTls
from millrace.cluster.job import JobSpec, decode_job, encode_job
from millrace.errors import Invalid
from millrace.submitting import job_spec

SQL = """
    CREATE SOURCE bid WITH (connector='nexmark', table='bid', events='1000');
    CREATE SINK o FROM (SELECT auction FROM bid) INTO FILE (path='/tmp/never', format='json');
"""


def spec_of(settings: str = "", **options: str) -> JobSpec:
    return job_spec(
        settings + SQL, job="j", partitions=2, checkpoint_interval=1, variables={}, settings=options
    )


def test_where_partitions_run_and_how_long_they_may_be_silent() -> None:
    spec = spec_of(
        "SET placement = 'pack'; SET placement.resources = 'ssd, gpu_node:0.5'; SET liveness = '500 ms'; SET lease = '4s';"
    )
    assert spec.placement == "pack"
    assert spec.resources == (("ssd", 1.0), ("gpu_node", 0.5))
    assert (spec.liveness_s, spec.lease_s) == (0.5, 4.0)
    assert decode_job(encode_job(spec), "j") == spec


def test_a_lease_follows_the_silence_that_is_allowed() -> None:
    assert spec_of(liveness="3 s").lease_s == 9.0
    plain = spec_of()
    assert (plain.placement, plain.liveness_s, plain.lease_s, plain.exchange_tls) == (
        "spread",
        2.0,
        6.0,
        None,
    )


def test_certificates_of_the_exchange() -> None:
    given = {f"exchange.tls.{part}": f"/etc/{part}.pem" for part in ("certificate", "key", "authority")}
    assert spec_of(**given).exchange_tls == ExchangeTls(
        "/etc/certificate.pem", "/etc/key.pem", "/etc/authority.pem"
    )


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("placement", "anywhere", "MR1541"),
        ("placement.resources", "gpu:many", "MR1541"),
        ("placement.resources", "", "MR1541"),
        ("liveness", "soon", "MR1541"),
        ("liveness", "-1 s", "MR1541"),
        ("lease", "1 h", "MR1541"),
        ("exchange.tls.key", "/k", "MR1543"),
        ("exchange.tls.cipher", "x", "MR1543"),
        ("placment", "pack", "MR1540"),
    ],
)
def test_refused(name: str, value: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        spec_of(**{name: value})
    assert caught.value.code == code
    assert caught.value.hint


def test_a_lease_shorter_than_the_silence_is_refused() -> None:
    with pytest.raises(Invalid, match="MR1541"):
        spec_of(liveness="3 s", lease="2 s")
