"""The SQL in the documentation is SQL that Millrace takes, and the pages it links to are there."""

import re
from pathlib import Path

import pytest

from millrace.planner.session import Planner

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_sql_block_has_no_error(block: str) -> None:
    assert [str(error) for error in Planner().validate(block)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*/*.sql")), ids=lambda path: path.stem)
def test_example_has_no_error(example: Path, tmp_path: Path) -> None:
    for name, text in {
        "trades.csv": "trade_id,symbol,account,side,price,volume,ts\n",
        "orders.csv": "order_id,symbol,account,side,price,quantity,ts\n",
        "access.jsonl": "",
        "measurements.txt": "",
    }.items():
        (tmp_path / name).write_text(text)
    planner = Planner(variables={"DATA": str(tmp_path), "OUT": str(tmp_path)})
    assert [str(error) for error in planner.validate(example.read_text())] == []
