"""What a query answers: rows in Arrow, shown as a table in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas
    import polars

ROWS_SHOWN = 20
CELL_WIDTH = 40


class Result:
    """The rows of one answer. Iterates as dicts; `arrow` is the `pyarrow.Table` itself."""

    def __init__(self, table: pa.Table) -> None:
        self.arrow = table

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns."""
        return self.arrow.schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.arrow.column_names)

    def rows(self) -> list[dict[str, object]]:
        """All rows, each as a dict from column name to Python value."""
        return list(self.arrow.to_pylist())

    def tuples(self) -> list[tuple[object, ...]]:
        """All rows, each as a tuple in column order."""
        return list(zip(*(column.to_pylist() for column in self.arrow.columns), strict=True))

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas frame (pandas must be installed)."""
        return self.arrow.to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """The rows as a Polars frame (Polars must be installed)."""
        import polars

        frame = polars.from_arrow(self.arrow)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self.rows())

    def __repr__(self) -> str:
        return text_table(self.arrow)

    def _repr_html_(self) -> str:
        shown = self.arrow.slice(0, ROWS_SHOWN)
        head = "".join(
            f"<th>{html.escape(field.name)}<br><small>{html.escape(str(field.type))}</small></th>"
            for field in self.schema
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
            for row in zip(*(column.to_pylist() for column in shown.columns), strict=True)
        )
        more = len(self) - len(shown)
        note = f"<p>… {more:,} more rows</p>" if more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def text_table(table: pa.Table, rows_shown: int = ROWS_SHOWN) -> str:
    """A plain-text table: at most `rows_shown` rows, numbers to the right, long cells cut."""
    shown = table.slice(0, rows_shown)
    columns = [[_cell(value) for value in column.to_pylist()] for column in shown.columns]
    names = [_cut(name) for name in table.column_names]
    widths = [max(map(len, [name, *cells])) for name, cells in zip(names, columns, strict=True)]
    right = [_is_number(field.type) for field in table.schema]

    def line(cells: tuple[str, ...] | list[str]) -> str:
        parts = zip(cells, widths, right, strict=True)
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in parts).rstrip()

    lines = [line(names), "  ".join("─" * width for width in widths)]
    lines += [line(row) for row in zip(*columns, strict=True)]
    count = table.num_rows
    left_out = f", {count - len(shown):,} not shown" if count > len(shown) else ""
    lines.append(f"({count:,} row{'' if count == 1 else 's'}{left_out})")
    return "\n".join(lines)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 or abs(value) >= 1e15 else f"{value:.2f}"
    return _cut(str(value))


def _cut(text: str) -> str:
    text = text.replace("\n", "⏎")
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"
