"""A code means one thing: it is raised in one module, or the modules that raise it say the same with it."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = [ROOT / name for name in ("state", "operators", "planner", "cluster")]
SHARED = {
    "MR1010": "an option is written wrongly",
    "MR1012": "a statement is too deep or too long to be read",
    "MR1017": "a clause or word is said twice",
    "MR1019": "a clause stands in the wrong place",
    "MR1030": "a text is no duration",
    "MR1031": "a duration must be positive",
    "MR1032": "an interval of months where a length is needed",
    "MR1044": "a join is written wrongly",
    "MR1048": "a text is no address of a source",
    "MR1050": "rows of VALUES differ in length",
    "MR1060": "the format is given twice",
    "MR1083": "the annotations of a metric do not go together",
    "MR1101": "there is no such column",
    "MR1102": "there is no such relation, or column of it",
    "MR1109": "more names than columns",
    "MR1110": "a value does not have the type of its place",
    "MR1111": "values have no common type",
    "MR1113": "two relations have one name",
    "MR1117": "the values do not pair with the columns they are written into",
    "MR1119": "a constant does not compute, or is NULL where that can not be",
    "MR1124": "a function takes its arguments by position",
    "MR1128": "the query has no such window bound",
    "MR1138": "FOR SYSTEM_TIME AS OF stands where it can not",
    "MR1155": "there is no such system column here",
    "MR1201": "the catalog has no such name",
    "MR1208": "what is named takes no rows from INSERT",
    "MR1210": "there is no such function",
    "MR1211": "a function does not take these arguments",
    "MR1212": "a user's function can not be registered so",
    "MR1215": "a function knows no such unit, field or zone",
    "MR1324": "what speaks of late rows needs a window of event time",
    "MR1347": "rows can not be ordered by such values",
    "MR1386": "a text can not name a job",
    "MR1404": "an option is given twice",
    "MR1407": "a sink can not take rows in this changelog mode",
    "MR1423": "the columns of a file can not be found",
    "MR1430": "nexmark has no such table",
    "MR1435": "rows of this source have no format",
    "MR1450": "an option of datagen is of no column",
    "MR1452": "the value of a datagen rule does not do",
    "MR1453": "a datagen rule does not fit the type of its column",
    "MR1475": "there is no such topic",
    "MR1493": "an option names a column that is not there",
    "MR1510": "a reader is too slow",
    "MR1541": "a setting can not have this value",
    "MR1544": "a setting belongs elsewhere",
    "MR1560": "there is no place for checkpoints",
    "MR1590": "there is no such job",
    "MR1901": "a construct is read and has no meaning here",
    "MR1903": "a correlated query that can not be kept incrementally",
    "MR1902": "a pattern of rows is too large",
    "MR1922": "a query stands for a value where it can not be kept",
    "MR1931": "a session window is aggregated otherwise than it is partitioned",
    "MR1943": "a join on time that can not be kept",
    "MR1995": "a statement that is known and not supported",
    "MR2001": "a value is out of the range of its type",
    "MR2010": "a user's function returned another number of rows",
    "MR2011": "a user's function returned another type",
    "MR2020": "an aggregate has no value of its type",
    "MR2021": "a time is out of range",
    "MR3011": "an actor of the cluster does not answer",
    "MR4001": "another owner has taken over",
    "MR5011": "an object is cut short",
    "MR5012": "an object does not match its checksum",
    "MR5013": "an object holds something else",
    "MR5042": "an outbox does not decode",
    "MR9010": "a row was taken back that is not there",
}
"""Codes that several modules raise, and what all of them mean by it."""


def raised() -> dict[str, set[str]]:
    """For each code the modules in which it stands as a text of its own."""
    found: dict[str, set[str]] = defaultdict(set)
    front = (ROOT / "src" / "millrace").glob("*.py")
    for path in [*front, *(path for floor in FLOORS for path in floor.rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and re.fullmatch(r"MR\d{4}", text):
                found[text].add(str(path.relative_to(ROOT)))
    return found


def test_no_code_is_used_with_two_meanings() -> None:
    several = {code: sorted(places) for code, places in raised().items() if len(places) > 1}
    assert {code: places for code, places in several.items() if code not in SHARED} == {}


def test_what_is_listed_as_shared_is_shared() -> None:
    found = raised()
    assert [code for code in SHARED if len(found.get(code, ())) < 2] == []
