"""The tree that the parser hands out: sqlglot nodes in normal form, and our own where sqlglot has none.

Only the nodes named here occur, with only the arguments named here; the parser refuses the rest with a code.
`position_of(node)` gives line and column for every node.

Queries
  exp.Select      with_ (exp.With), distinct (exp.Distinct; its `on` is a Tuple for DISTINCT ON), expressions list,
                  from_ (exp.From), joins list of exp.Join, where (exp.Where), group (exp.Group), having (exp.Having),
                  qualify (exp.Qualify), order (exp.Order), limit (exp.Limit), offset (exp.Offset),
                  emit (Emit), lateness (AllowLateness), late_data (LateDataTo), key (list of exp.Column: `PRIMARY KEY`
                  in the select list, which sets the output key)
  exp.Union, exp.Except, exp.Intersect
                  this, expression, distinct (True/False), with_, order, limit, offset, emit, lateness, late_data
  exp.Subquery    this, alias; in FROM, or as a scalar expression
  exp.CTE         this (a query), alias (exp.TableAlias)
  exp.Values      expressions list of exp.Tuple, alias; in FROM
  exp.TableAlias  this (exp.Identifier), columns list
  exp.Group       expressions list: expressions, at most one GroupWindow, and exp.GroupingSets, exp.Rollup, exp.Cube
                  (their `expressions` hold expressions and exp.Tuple; an empty Tuple is the grand total)
  Named windows (WINDOW w AS (…)) are filled in where they are used; parentheses around single expressions (exp.Paren)
  stay.

Relations in FROM (exp.From.this) and in joins (exp.Join.this); each takes `alias` (exp.TableAlias)
  exp.Table       this (exp.Identifier), db, catalog, version (SystemTime)
  InlineSource    `FROM 'file://…'`, `FROM kafka://topic`
  WindowTable     a windowing table function
  exp.Unnest      expressions list, offset (an exp.Identifier or True: WITH ORDINALITY)
  MatchRecognize  its `this` is the relation it reads; FINAL f(…) and RUNNING f(…) in its measures are MeasureFrame
  TableCall       any other function in FROM: `this` is a Call
exp.Join          this, side ('LEFT'|'RIGHT'|'FULL'|None), kind ('INNER'|'CROSS'|'SEMI'|'ANTI'|None), on, using list,
                  method ('ASOF' or None), asof (AsofMatch), within (Within), probe (Probe: TEMPORAL PROBE JOIN, of side
                  'LEFT'). A comma in FROM is kind 'CROSS'.

Expressions
  Call            every function call, aggregate or not, whatever syntax it had (f(a => 1) has a NamedArgument):
                  EXTRACT(x FROM y) is date_part('x', y); POSITION(a IN b) is strpos(b, a); SUBSTRING(a FROM b FOR c) is
                  substring(a, b, c); TRIM([LEADING|TRAILING|BOTH] c FROM a) is ltrim/rtrim/btrim(a, c);
                  OVERLAY(a PLACING b FROM c FOR d) is overlay(a, b, c, d); CURRENT_TIMESTAMP is current_timestamp();
                  FLOOR(t TO DAY) is date_trunc('day', t), CEIL(t TO DAY) is date_ceil('day', t);
                  TIMESTAMPADD/TIMESTAMPDIFF/DATE_DIFF(unit, …) have the unit as a string; a -> b is json_get(a, b),
                  a ->> b is json_get_text(a, b); a ~ b is regexp_like(a, b), a ~* b regexp_like(a, b, 'i');
                  a || b is exp.DPipe
  exp.Window      this (Call), partition_by list, order (exp.Order), spec (exp.WindowSpec: kind ROWS|RANGE|GROUPS,
                  start, start_side, end, end_side as sqlglot has them)
  RowsWindow      OVER (ROWS WINDOW BUFFER …)
  WindowBound     TUMBLE_START(…), _WINDOW_START, tumble(…).start, …
  exp.Column      this (exp.Identifier or exp.Star), table, db, catalog; `a.b.c` of structs also comes so
  exp.Dot         field of an expression that is no plain name: this, expression (exp.Identifier)
  exp.Bracket     this, expressions (one): element of array or map, index as written (SQL counts from 1)
  exp.Star        except_ (list of exp.Identifier), rename/replace lists as sqlglot has them
  exp.HexString   x'00ff': this is the hex text
  exp.Literal, exp.Boolean, exp.Null, exp.Alias, exp.Paren, exp.Tuple (also ROW(…) is Call 'row'), exp.Ordered
                  (this, desc, nulls_first as the user said, or None)
  Interval        `INTERVAL '5' SECOND`, `INTERVAL '1 day 2 hours'`: months and µs
  exp.Cast, exp.TryCast   this, to (TypeName); `x::t`, JSON_VALUE(… RETURNING t), `DATE '2020-01-01'` and `TIMESTAMP '…'` are casts of a string
  exp.Array       ARRAY[…]: expressions; exp.Map has keys and values (exp.Array each): MAP {…} and MAP['k', v, …]
  exp.Lambda      x -> e as function argument: expressions (exp.Identifier), this
  exp.And Or Not EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is Between In Like ILike SimilarTo Escape Add Sub Mul Div
  Mod Neg DPipe BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift Exists Any All Case If
                  as sqlglot has them (`NOT x LIKE y` is Not(Like); exp.In has expressions, or query; Case has this, ifs
                  (exp.If: this, true), default; IS DISTINCT FROM is NullSafeNEQ)
  AtTimeZone      exp.AtTimeZone: this, zone
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlglot import exp

from millrace.errors import Position


class Call(exp.Expression, exp.Func):
    """A function call. `this` is the name in lower case (a str).

    `distinct` True for f(DISTINCT …); `order` a list of exp.Ordered (ORDER BY inside the call, or WITHIN GROUP, then
    `within_group` is True); `filter` a condition; `nulls` 'ignore' or 'respect'; `separator` is just another argument.
    f(*) has one exp.Star in `expressions`. Named arguments (f(a => 1)) are NamedArgument.
    """

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "expressions": False,
        "distinct": False,
        "order": False,
        "within_group": False,
        "filter": False,
        "nulls": False,
    }
    is_var_len_args = True


class NamedArgument(exp.Expression):
    """`name => value` in a call: `this` is the name in lower case (a str), `expression` the value."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True, "expression": True}


class TypeName(exp.Expression):
    """The target of a cast. `this` is the type's text in upper case; `planner.dialect.types.parse_type` reads it."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True}


class Interval(exp.Expression):
    """A constant interval: `months` and `us` (µs) as ints. Both may be set; either may be negative."""

    arg_types: ClassVar[dict[str, bool]] = {"months": False, "us": False}

    @property
    def months(self) -> int:
        return int(self.args.get("months") or 0)

    @property
    def us(self) -> int:
        return int(self.args.get("us") or 0)


class WindowFields:
    """What WindowTable and GroupWindow have in common; times in µs.

    `kind` is 'tumble', 'hop', 'session' or 'cumulate'. tumble: size. hop: size, slide (slide <= size). session: gap.
    cumulate: size, step (size is a multiple). `offset` shifts tumble, hop and cumulate (0 where not given).
    `time` is an exp.Column, Call 'proctime', or None: the input's event time.
    """

    window_arg_types: ClassVar[dict[str, bool]] = {
        "kind": True,
        "time": False,
        "size": False,
        "slide": False,
        "step": False,
        "gap": False,
        "offset": False,
    }


class WindowTable(exp.Expression):
    """A windowing table function in FROM: all columns of `this` (a relation) and window_start, window_end, window_time.

    See WindowFields. `partition_by` (list) is for sessions. `alias` is an exp.TableAlias.
    """

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        **WindowFields.window_arg_types,
        "partition_by": False,
        "alias": False,
    }


class GroupWindow(exp.Expression):
    """A window in `Group.expressions`. See WindowFields. There is at most one in a query.

    `WINDOW TUMBLING(…)` clauses come so too; their PARTITION BY keys are then group expressions like any other.
    """

    arg_types: ClassVar[dict[str, bool]] = WindowFields.window_arg_types


class WindowBound(exp.Expression):
    """A bound of the query's GroupWindow. `bound` is 'start', 'end', 'time' (end - 1 ms) or 'struct' (start and end).

    Unqualified `window_start`, `window_end`, `window_time` in a query that has a GroupWindow come so too, as does
    `_WINDOW_START` anywhere; over a WindowTable the first three are plain columns.
    """

    arg_types: ClassVar[dict[str, bool]] = {"bound": True}


class Emit(exp.Expression):
    """`mode` is 'final', 'changes', 'every_record' (EMIT CHANGES with a WINDOW clause, or
    with the option 'changes' = 'every_record') or 'interval' (with `us`)."""

    arg_types: ClassVar[dict[str, bool]] = {"mode": True, "us": False}


class AllowLateness(exp.Expression):
    """ALLOW LATENESS: `us`."""

    arg_types: ClassVar[dict[str, bool]] = {"us": True}


class LateDataTo(exp.Expression):
    """LATE DATA TO: `this` is an exp.Table."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True}


class RowsWindow(exp.Expression):
    """`this` (Call) OVER the last `rows` rows of each partition.

    `partition_by` list, `order` (exp.Order or None), `spec` (exp.WindowSpec or None: the whole buffer),
    `emit` 'every_record' or 'buffer_full', `expire` µs without rows after which a partition is forgotten, or None.
    """

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "rows": True,
        "partition_by": False,
        "order": False,
        "spec": False,
        "emit": True,
        "expire": False,
    }


class AsofMatch(exp.Expression):
    """MATCH_CONDITION: `this` is the whole condition (comparison, and a bound by AND). `nearest` True for NEAREST."""

    arg_types: ClassVar[dict[str, bool]] = {"this": False, "nearest": False}


class Within(exp.Expression):
    """WITHIN of a join: |left time - right time| bounds in µs: `before` and `after` (equal for a plain WITHIN)."""

    arg_types: ClassVar[dict[str, bool]] = {"before": True, "after": True}


class Probe(exp.Expression):
    """TEMPORAL PROBE JOIN: `offsets` (list of µs, whole ms), `times` (list of the left and the right time, or None),
    `alias` (exp.TableAlias) of the relation with offset_ms and probe_ts."""

    arg_types: ClassVar[dict[str, bool]] = {"offsets": True, "times": False, "alias": False}


class SystemTime(exp.Expression):
    """FOR SYSTEM_TIME AS OF: `this` is the time expression."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True}


class InlineSource(exp.Expression):
    """A source named by URI in FROM: `uri` (str) and `options` (list of exp.Tuple of two literals), `alias`."""

    arg_types: ClassVar[dict[str, bool]] = {"uri": True, "options": False, "alias": False}


class MatchRecognize(exp.Expression):
    """MATCH_RECOGNIZE over the relation `this`: `partition_by`, `order`, `measures` and `define` (lists of exp.Alias),
    `subsets` (exp.Alias of an exp.Tuple of exp.Identifier), `rows` 'one' or 'all', `pattern` (an
    operators.match_recognize.pattern.Pattern), `after` 'past last row', 'to next row', 'to first' or 'to last' (of the
    exp.Identifier `target`), `within` µs, `alias`."""

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "partition_by": False,
        "order": False,
        "measures": False,
        "rows": True,
        "after": True,
        "target": False,
        "pattern": True,
        "within": False,
        "subsets": False,
        "define": False,
        "alias": False,
    }


class MeasureFrame(exp.Expression):
    """FINAL or RUNNING before a call in MEASURES: `this` (Call), `final` True or False."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True, "final": True}


class TableCall(exp.Expression):
    """A function in FROM that is no window: `this` (Call), `lateral`, `alias`."""

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "lateral": False,
        "ordinality": False,
        "alias": False,
    }


def set_position(node: Any, position: Position) -> None:
    """Notes where `node` begins; kept over copies."""
    node.meta["line"] = position.line
    node.meta["col"] = position.column
    node.meta["length"] = position.length


def position_of(node: object) -> Position | None:
    """Where `node` begins: its own place if noted, else the first place noted in it; None where nothing is."""
    if not isinstance(node, exp.Expr):
        return None
    own = _noted(node)
    if own is not None:
        return own
    places = [place for child in node.walk() if (place := _noted(child)) is not None]
    return min(places, key=lambda p: (p.line, p.column)) if places else None


def _noted(node: exp.Expr) -> Position | None:
    meta = node._meta
    if not meta or "line" not in meta:
        return None
    length = meta.get("length") or meta.get("end", 0) - meta.get("start", 0) + 1
    return Position(meta["line"], meta["col"], max(1, length))
