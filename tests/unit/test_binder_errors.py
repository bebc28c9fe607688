"""What is wrong in a statement is refused with a code, a place and a hint."""

import pytest

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.planner.session import Planner

SOURCES = """
CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND) WITH ('connector' = 'push');
CREATE SOURCE plain (id INT, ts TIMESTAMP(3), r ROW<a INT>) WITH ('connector' = 'push');
CREATE VIEW v AS SELECT auction FROM bid;
"""
LINES = SOURCES.count("\n")

CASES = [
    ("SELECT bidd FROM bid", "MR1101", 8, "did you mean bidder?"),
    ("SELECT a.price FROM bid b", "MR1102", 8, "the query reads b"),
    ("SELECT auction FROM bid a JOIN bid b ON a.auction = b.auction", "MR1103", 8, "a.auction or b.auction"),
    ("SELECT r.b FROM plain", "MR1104", 8, "there are a"),
    ("SELECT * FROM bidd", "MR1201", 15, "did you mean bid?"),
    ("SELECT price FROM bid GROUP BY channel", "MR1120", 8, "add price to GROUP BY"),
    ("SELECT * FROM bid WHERE sum(price) > 3", "MR1121", 25, "HAVING"),
    ("SELECT sum(max(price)) FROM bid", "MR1121", 12, None),
    ("SELECT rank() FROM bid", "MR1122", 8, "OVER"),
    ("SELECT lower(price, 3) FROM bid", "MR1211", 8, "its forms"),
    ("SELECT nofunc(price) FROM bid", "MR1210", 8, None),
    ("SELECT * FROM bid WHERE price", "MR1110", 25, "CAST"),
    ("SELECT CASE WHEN price > 1 THEN 1 ELSE channel END FROM bid", "MR1111", 8, "cast"),
    ("SELECT channel FROM bid UNION ALL SELECT price, auction FROM bid", "MR1108", None, "equally many"),
    ("SELECT channel FROM bid UNION ALL SELECT price FROM bid", "MR1111", None, "cast"),
    ("SELECT count(*) FROM bid GROUP BY 3", "MR1133", 35, None),
    ("SELECT count(*) FROM bid GROUP BY TUMBLE(price, INTERVAL '1' SECOND)", "MR1321", None, "dateTime"),
    ("SELECT count(*) FROM plain GROUP BY TUMBLE(ts, INTERVAL '1' SECOND)", "MR1321", None, "WATERMARK"),
    ("SELECT channel, count(*) FROM bid GROUP BY channel EMIT ON WINDOW CLOSE", "MR1322", None, "EMIT CHANGES"),
    ("SELECT * FROM bid EMIT ON WINDOW CLOSE", "MR1323", None, "leave it out"),
    ("SELECT channel, count(*) FROM bid GROUP BY channel ALLOW LATENESS INTERVAL '1' HOUR", "MR1324", None, None),
    ("SELECT sum(price) OVER (ORDER BY price RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW) FROM bid",
     "MR1941", None, "count ROWS"),
    ("SELECT sum(price) OVER () FROM bid", "MR1341", None, "CURRENT ROW"),
    ("SELECT price > (SELECT id FROM plain) FROM bid", "MR1922", None, None),
    ("CREATE STREAM s AS SELECT * FROM bid ORDER BY price", "MR1344", None, "LIMIT"),
    ("CREATE SINK s FROM (SELECT * FROM bid ORDER BY price) INTO CONSOLE ()", "MR1344", None, "LIMIT"),
    ("SELECT * FROM v WHERE now() > '2020-01-01'", "MR1925", None, "now() - INTERVAL"),
    ("CREATE STREAM s AS SELECT price, auction AS price FROM bid", "MR1118", None, "AS"),
    ("CREATE SOURCE bid (x INT) WITH ('connector' = 'push')", "MR1202", 15, "IF NOT EXISTS"),
    ("SELECT * FROM bid WHERE dateTime > 'yesterday'", "MR1136", None, None),
    ("SELECT DATE '2024-13-01' FROM bid", "MR1136", None, None),
    ("CREATE SINK x FROM bid INTO BLACKHOLE () WITH (keey = 'price')", "MR1348", None, "key"),
    ("CREATE STREAM x WITH ('state.ttl' = '1h') AS SELECT price FROM bid", "MR1954", None, None),
    ("DROP SOURCE bid", "MR1206", 13, "CASCADE"),
    ("DROP STREAM v", "MR1205", 13, "write VIEW v"),
    ("CREATE SINK x FROM bid INTO BLACKHOL ()", "MR1400", None, "blackhole"),
    ("INSERT INTO v SELECT * FROM bid", "MR1208", 13, None),
    ("CREATE SOURCE w (t STRING, WATERMARK FOR t AS t) WITH ('connector' = 'push')", "MR1116", None, "TIMESTAMP"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "code", "column", "hint"), CASES, ids=[c[0][:60] for c in CASES])
def test_error_has_code_place_and_hint(sql: str, code: str, column: int | None, hint: str | None) -> None:
    with pytest.raises(MillraceError) as caught:
        Planner().compile(SOURCES + sql)
    error = caught.value
    assert error.code == code
    assert isinstance(error, Unsupported if code >= "MR1900" else Invalid)
    assert error.position is not None
    assert error.position.line == LINES + 1
    if column is not None:
        assert error.position.column == column
    assert hint is None or hint in (error.hint or "")
    assert "^" in str(error)


def test_a_failed_statement_leaves_the_catalog_alone() -> None:
    planner = Planner()
    planner.compile(SOURCES)
    before = [e.name for e in planner.catalog]
    for sql in ("CREATE STREAM s AS SELECT nope FROM bid", "CREATE SINK s FROM bid INTO BLACKHOL ()"):
        with pytest.raises(MillraceError):
            planner.compile(sql)
    with pytest.raises(MillraceError):
        planner.compile("DROP VIEW v, nothing")
    assert [e.name for e in planner.catalog] == before


def test_validate_finds_every_error_once_and_blames_no_reader_of_what_failed() -> None:
    text = (
        SOURCES
        + "CREATE STREAM s AS SELECT nope FROM bid;\n"
        + "SELECT * FROM s;\n"
        + "SELECT lower(price, 1) FROM bid;\n"
        + "SELEC 1;\n"
        + "SELECT auction FROM bid EXCEPT SELECT id, ts FROM plain;\n"
    )
    planner = Planner()
    errors = planner.validate(text)
    assert [(e.code, e.position.line - LINES) for e in errors if e.position][:2] == [
        ("MR1101", 1),
        ("MR1211", 3),
    ]
    assert {e.position.line - LINES for e in errors if e.position} == {1, 3, 4, 5}
    assert list(planner.catalog) == []
