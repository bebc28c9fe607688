"""Mistakes people make: each is told with its code, its place and what to do."""

from collections.abc import Iterator

import pytest

import millrace
from millrace.database import Database
from millrace.errors import MillraceError

SETUP = """
    CREATE SOURCE bid (auction BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
        WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'push');
    CREATE SOURCE plain (id BIGINT, name STRING, at TIMESTAMP(3)) WITH ('connector' = 'push');
"""
MISTAKES = [
    # (SQL, code, what the caret points at, part of the hint)
    ("SELECT pric FROM bid", "MR1101", "pric", "did you mean price?"),
    ("SELECT price FROM bidd", "MR1201", "bidd", "did you mean bid?"),
    ("SELECT uper(channel) FROM bid", "MR1210", "uper", "upper"),
    ("SELECT b.price FROM bid a", "MR1102", "b", "the query reads a"),
    ("SELECT window_start FROM bid", "MR1101", "window_start", "add a window"),
    ("SELECT a.price FROM bid a JOIN bid b ON a.auction = b.auction WHERE price > 3", "MR1103", "price", "a.price or b.price"),
    ("SELECT price + channel FROM bid", "MR1211", "price", "+(NUMBER, NUMBER)"),
    ("SELECT price FROM bid WHERE price = channel", "MR1211", "price", "CAST one of them"),
    ("SELECT price FROM bid WHERE ts > 5", "MR1211", "ts", "CAST one of them"),
    ("SELECT sum(channel) FROM bid", "MR1211", "sum", "sum([DISTINCT] x)"),
    ("SELECT substring(price, 1) FROM bid", "MR1211", "substring", "substring(STRING"),
    ("SELECT price FROM bid WHERE channel", "MR1110", "channel", "CAST(… AS BOOLEAN)"),
    ("SELECT channel, price, count(*) FROM bid GROUP BY channel", "MR1120", "price", "add price to GROUP BY"),
    ("SELECT channel FROM bid WHERE count(*) > 3", "MR1121", "count", "HAVING"),
    ("SELECT sum(max(price)) FROM bid", "MR1121", "max", "subquery"),
    ("SELECT lag(price) FROM bid", "MR1122", "lag", "OVER"),
    ("SELECT count(*) FROM plain GROUP BY TUMBLE(at, INTERVAL '1' MINUTE)", "MR1321", "at", "WATERMARK FOR"),
    ("SELECT count(*) FROM bid GROUP BY TUMBLE(ts, 5)", "MR1030", "5", "INTERVAL '5' MINUTE"),
    ("SELECT count(*) FROM bid GROUP BY HOP(ts, INTERVAL '9' SECOND, INTERVAL '5' SECOND)", "MR1041", "INTERVAL", "the slide, then the size"),
    ("SELECT max(price) FROM bid EMIT ON WINDOW CLOSE", "MR1322", "EMIT", "EMIT CHANGES"),
    ("SELECT price FROM bid UNION ALL SELECT channel FROM bid", "MR1111", "SELECT", "cast"),
    ("SELECT price FROM bid UNION ALL SELECT price, channel FROM bid", "MR1108", "SELECT", "equally many"),
    ("SELECT CAST(price AS INTT) FROM bid", "MR1020", "INTT", "did you mean INT?"),
    ("SELECT price, FROM bid", "MR1011", "FROM", "comma"),
    ("SELECT price FORM bid", "MR1013", "bid", "did you mean FROM?"),
    ("SELECT 'abc FROM bid", "MR1001", "'", "close it"),
    ("SELECT * FROM bid JOIN plain", "MR1044", "", "CROSS JOIN"),
    ("CREATE SOURCE x (a INT) WITH ('conector' = 'push')", "MR1061", "WITH", "'connector'"),
    ("CREATE SOURCE x (a INT) WITH ('connector' = 'file', 'pth' = 'x')", "MR1401", "'pth'", "did you mean 'path'?"),
    ("CREATE SOURCE x (a INT) WITH ('connector' = 'fil', 'path' = 'x')", "MR1400", "'connector'", "file"),
    ("CREATE SINK o FROM bidd INTO CONSOLE ()", "MR1201", "bidd", "did you mean bid?"),
    ("INSERT INTO bid VALUES (1, 2)", "MR1117", "1", "auction, price, channel, ts"),
    ("SHOW SORCES", "MR1010", "SORCES", "did you mean SOURCES?"),
    ("SELCT 1", "MR1005", "SELCT", "did you mean SELECT?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        database.execute(SETUP)
        yield database


@pytest.mark.parametrize(("sql", "code", "at", "hint"), MISTAKES, ids=[m[0][:60] for m in MISTAKES])
def test_mistake_is_told_with_its_place_and_a_way_out(
    db: Database, sql: str, code: str, at: str, hint: str
) -> None:
    with pytest.raises(MillraceError) as caught:
        db.explain(sql)
    error = caught.value
    assert error.code == code
    assert error.position is not None
    assert sql[error.position.column - 1 :].startswith(at)
    assert hint in str(error.hint)
    shown = str(error).splitlines()
    assert "^" in shown[2] and f"[{code}]" in shown[0]
