"""Statements: what one parsed SQL statement says, before any name is looked up. Knows no catalog and no plan.

Queries inside are sqlglot trees in the normal form that `planner.dialect.nodes` documents. Everything else is
plain values. Names keep the spelling the user gave; comparing them without case is the reader's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from millrace.errors import MillraceError, Position

if TYPE_CHECKING:
    from sqlglot import exp

    Query: TypeAlias = exp.Query
    """A `Select`, a set operation or a `Subquery` in normal form."""
    Expression: TypeAlias = exp.Expression


@dataclass(frozen=True, slots=True)
class Name:
    """A name in SQL text: its dotted parts as written (without quotes) and where it stands."""

    parts: tuple[str, ...]
    position: Position
    quoted: bool = False

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True)
class Option:
    """One `key = value` of a connector, a format or a WITH clause; the value is text whatever its literal was."""

    name: str
    value: str
    position: Position


@dataclass(frozen=True, slots=True)
class Annotation:
    """One `-- @name: value` (or `-- @name value`) comment line above a statement."""

    name: str
    value: str
    position: Position
    colon: bool = True
    """Whether a colon follows the name, as it seldom does in prose."""


@dataclass(frozen=True, slots=True)
class SqlType:
    """A type as written and as Arrow. `field` carries what Arrow types can not say (JSON) as field metadata."""

    text: str
    arrow: pa.DataType
    metadata: tuple[tuple[bytes, bytes], ...] = ()

    def field(self, name: str, nullable: bool = True) -> pa.Field:
        return pa.field(name, self.arrow, nullable, dict(self.metadata) or None)


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A declared column. Exactly one of `type` (stored or metadata) and `computed` (an expression) may be None.

    `metadata_key` is set for `c TYPE METADATA [FROM 'key']` (the key is the column's name where none is given).
    """

    name: str
    position: Position
    type: SqlType | None = None
    not_null: bool = False
    computed: Expression | None = None
    metadata_key: str | None = None
    virtual: bool = False


@dataclass(frozen=True, slots=True)
class Watermark:
    """`WATERMARK FOR column [AS expression]`. `delay_us` is set where the expression is `column [- constant]`;
    no expression at all is a delay of None and means the connector's default."""

    column: str
    position: Position
    delay_us: int | None = None
    expression: Expression | None = None


@dataclass(frozen=True, slots=True)
class Connector:
    """`KAFKA (k = v, …)`, `WITH ('connector' = 'kafka', …)` or Velostream's `'t.type' = 'kafka_source'`.

    `name` is lower case and without `_source`/`_sink`; `options` exclude `connector` and `format`.
    """

    name: str
    position: Position
    options: tuple[Option, ...] = ()
    format: str | None = None
    format_options: tuple[Option, ...] = ()


class Role(Enum):
    """What a Velostream connector on a query is to that query."""

    SOURCE = "source"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class NamedConnector:
    """A source or sink that a query's own `WITH ('<name>.type' = …)` declares."""

    name: str
    role: Role
    connector: Connector


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What all statements have: where the first word stands, the text (variables filled in), annotations above."""

    position: Position
    text: str
    annotations: tuple[Annotation, ...] = ()


class SourceKind(Enum):
    """The word that declared it: a `TABLE` may be a source or a sink, by how it is used."""

    SOURCE = "source"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSource(Statement):
    """`CREATE SOURCE …`, or `CREATE TABLE …` with columns. `connector` None: a table of ours (rows by INSERT)."""

    kind: SourceKind
    name: Name
    columns: tuple[ColumnDefinition, ...]
    watermark: Watermark | None
    connector: Connector | None
    primary_key: tuple[str, ...] = ()
    enforced: bool = True
    if_not_exists: bool = False
    or_replace: bool = False


class QueryKind(Enum):
    """STREAM and CONTINUOUS emit rows; a VIEW is text only; TABLE (also MATERIALIZED VIEW) keeps its rows."""

    STREAM = "stream"
    VIEW = "view"
    TABLE = "table"
    CONTINUOUS = "continuous"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateQuery(Statement):
    """`CREATE STREAM|VIEW|TABLE|MATERIALIZED VIEW|CONTINUOUS QUERY name [(columns)] [WITH (…)] AS query`."""

    kind: QueryKind
    name: Name
    query: Query
    column_names: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    connectors: tuple[NamedConnector, ...] = ()
    into: Name | None = None
    if_not_exists: bool = False
    or_replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateLookup(Statement):
    """`CREATE LOOKUP TABLE d (…) WITH (…)` or `… FROM POSTGRES (…)`."""

    name: Name
    columns: tuple[ColumnDefinition, ...]
    primary_key: tuple[str, ...]
    connector: Connector
    if_not_exists: bool = False
    or_replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSink(Statement):
    """`CREATE SINK out FROM s [WHERE …] INTO KAFKA (…) [FORMAT …] [WITH (…)]`.

    `FROM s WHERE c` is given as the query `SELECT * FROM s WHERE c`. `query` None: a sink that `INSERT INTO` feeds.
    """

    name: Name
    query: Query | None
    connector: Connector
    options: tuple[Option, ...] = ()
    if_not_exists: bool = False
    or_replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertQuery(Statement):
    """`INSERT INTO t [(columns)] query`, or `SELECT … INTO t FROM …`."""

    target: Name
    query: Query
    columns: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    connectors: tuple[NamedConnector, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertValues(Statement):
    """`INSERT INTO t [(columns)] VALUES (…), …`. All rows have equally many expressions."""

    target: Name
    rows: tuple[tuple[Expression, ...], ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Statement):
    """`UPDATE t SET c = e, … [WHERE …]`."""

    target: Name
    assignments: tuple[tuple[Name, Expression], ...]
    where: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Statement):
    """`DELETE FROM t [WHERE …]`."""

    target: Name
    where: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectStatement(Statement):
    """A query that stands alone: its rows go to whoever runs it, or to the one sink in `connectors`."""

    query: Query
    options: tuple[Option, ...] = ()
    connectors: tuple[NamedConnector, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether the rows go to a sink that the query declares."""
        return any(named.role is Role.SINK for named in self.connectors)


class ObjectKind(Enum):
    """What DROP, ALTER and SHOW CREATE speak of. `ANY` where the statement gave no kind."""

    ANY = "any"
    SOURCE = "source"
    SINK = "sink"
    STREAM = "stream"
    TABLE = "table"
    VIEW = "view"
    MATERIALIZED_VIEW = "materialized view"
    LOOKUP_TABLE = "lookup table"
    CONTINUOUS_QUERY = "continuous query"
    FUNCTION = "function"
    JOB = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Statement):
    """`DROP kind [IF EXISTS] name, … [CASCADE|RESTRICT]`."""

    kind: ObjectKind
    names: tuple[Name, ...]
    if_exists: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Alter(Statement):
    """`ALTER kind name action`. Exactly one of the actions is set."""

    kind: ObjectKind
    name: Name
    if_exists: bool = False
    add_columns: tuple[ColumnDefinition, ...] = ()
    drop_columns: tuple[str, ...] = ()
    rename_column: tuple[str, str] | None = None
    rename_to: Name | None = None
    set_options: tuple[Option, ...] = ()
    reset_options: tuple[str, ...] = ()


class ShowKind(Enum):
    SOURCES = "sources"
    SINKS = "sinks"
    STREAMS = "streams"
    TABLES = "tables"
    VIEWS = "views"
    JOBS = "jobs"
    QUERIES = "queries"
    FUNCTIONS = "functions"
    TOPICS = "topics"
    PARTITIONS = "partitions"
    STATUS = "status"
    METRICS = "metrics"
    CHECKPOINT_STATUS = "checkpoint status"
    CREATE = "create"
    SETTINGS = "settings"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Show(Statement):
    """`SHOW kind [name] [LIKE 'p%']`; `SHOW ALL` is SETTINGS."""

    kind: ShowKind
    name: Name | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe(Statement):
    """`DESCRIBE [EXTENDED] name` or `DESCRIBE query`."""

    name: Name | None
    query: Query | None = None
    extended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain(Statement):
    """`EXPLAIN [ANALYZE] [(FORMAT JSON)] statement`."""

    statement: Statement
    analyze: bool = False
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVariable(Statement):
    """`SET name = value`, `SET 'name' = 'value'`; value None: `RESET name` (name None: all)."""

    name: str | None
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Statement):
    """`CHECKPOINT [JOB name]`."""

    job: Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore(Statement):
    """`RESTORE FROM CHECKPOINT n`."""

    checkpoint: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe(Statement):
    """`SUBSCRIBE [TO] name [AS OF EPOCH n] [WHERE …]`."""

    name: Name
    epoch: int | None = None
    where: Expression | None = None


class JobAction(Enum):
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    DEPLOY = "deploy"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobControl(Statement):
    """`START|STOP|PAUSE|RESUME|ROLLBACK JOB j` and `DEPLOY JOB j [VERSION v] AS query [STRATEGY s [(k = v)]]`.

    `query` and `body` belong to START and DEPLOY: `body` is the statement after AS where it is not a bare query.
    """

    action: JobAction
    job: Name
    version: str | None = None
    body: Statement | None = None
    strategy: str | None = None
    options: tuple[Option, ...] = ()
    force: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function; `name` may be empty."""

    name: str
    type: SqlType


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFunction(Statement):
    """`CREATE [AGGREGATE] FUNCTION f (a INT, …) RETURNS INT LANGUAGE PYTHON AS 'module:name' | $$ source $$`.

    `returns` are columns for `RETURNS TABLE (a INT, …)`. `target` is `module:name`; `body` is Python source between
    dollar quotes. Exactly one is set.
    """

    name: Name
    parameters: tuple[Parameter, ...]
    returns: SqlType | tuple[Parameter, ...]
    language: str
    target: str | None = None
    body: str | None = None
    aggregate: bool = False
    options: tuple[Option, ...] = ()
    if_not_exists: bool = False
    or_replace: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed text: the statements that parsed, in order, and every error that was found, in order of position."""

    statements: tuple[Statement, ...]
    errors: tuple[MillraceError, ...]
