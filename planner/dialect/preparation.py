"""What happens to the text before tokens: `${VAR}` is filled in and bare source URIs are quoted. Keeps places right."""

from __future__ import annotations

import re
from collections.abc import Mapping

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.planner.dialect.tokens import Text, line_starts

_INTERESTING = re.compile(
    r"""
    (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
  | (?P<body>\$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z))
  | (?P<variable>\$\{(?P<name>[^}:\n]*)(?::(?P<mode>[-?])(?P<rest>[^}\n]*))?\}?)
  | (?P<quote>')
  | (?P<name_quoted>"[^"]*"?|`[^`]*`?)
  | (?P<uri>(?:\b(?:FROM|JOIN)\s+|,\s*)(?P<target>[A-Za-z][A-Za-z0-9+.\-]*://[^\s;,()'"]+))
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def prepare(sql: str, variables: Mapping[str, str]) -> tuple[Text, tuple[MillraceError, ...]]:
    """`sql` with variables filled in, and an error (MR1002…MR1004) for each that could not be.

    Inside strings quotes in a value are doubled. Comments and dollar-quoted texts stay as they are.
    """
    return _Preparation(sql, variables).run()


class _Preparation:
    """One pass over the text, part by part."""

    def __init__(self, sql: str, variables: Mapping[str, str]) -> None:
        self._sql = sql
        self._variables = variables
        self._parts: list[str] = []
        self._length = 0
        self._starts: list[int] = []
        self._origins: list[int] = []
        self._fixed: list[bool] = []
        self._problems: list[tuple[str, str, str | None, int, int]] = []

    def run(self) -> tuple[Text, tuple[MillraceError, ...]]:
        sql, at, in_string = self._sql, 0, False
        while (match := _INTERESTING.search(sql, at)) is not None:
            if in_string:
                # Inside a string only its end and variables count.
                quote, variable = sql.find("'", at), sql.find("${", at)
                if variable >= 0 and (quote < 0 or variable < quote):
                    found = _INTERESTING.match(sql, variable)
                    assert found is not None
                    self._keep(at, variable)
                    self._fill(found, in_string=True)
                    at = found.end()
                elif quote < 0:
                    break
                else:
                    self._keep(at, quote + 1)
                    at, in_string = quote + 1, False
                continue
            if match["variable"] is not None:
                self._keep(at, match.start())
                self._fill(match, in_string=False)
            elif match["target"] is not None:
                self._keep(at, match.start("target"))
                self._quote(*match.span("target"))
            else:
                if match["comment"] is not None and match[0].startswith("/*+"):
                    self._refuse_hint(match)
                self._keep(at, match.end())
                in_string = match["quote"] is not None
            at = match.end()
        self._keep(at, len(sql))
        if not self._starts:
            self._put("", 0, fixed=False)
        text = Text(
            sql,
            "".join(self._parts),
            tuple(self._starts),
            tuple(self._origins),
            tuple(self._fixed),
            line_starts(sql),
        )
        return text, tuple(self._error(text, *problem) for problem in self._problems)

    def _quote(self, start: int, stop: int) -> None:
        """Puts a bare URI as a string, its variables filled in."""
        self._put("'", start, fixed=True)
        at = start
        while (variable := self._sql.find("${", at, stop)) >= 0:
            found = _INTERESTING.match(self._sql, variable)
            assert found is not None
            self._keep(at, variable)
            self._fill(found, in_string=True)
            at = found.end()
        self._keep(at, stop)
        self._put("'", stop - 1, fixed=True)

    def _refuse_hint(self, match: re.Match[str]) -> None:
        message, advice = (
            "optimizer hints are not supported",
            "take the hint out: /* … */ without + is a comment",
        )
        self._problems.append(("MR1962", message, advice, match.start(), len(match[0])))

    def _keep(self, start: int, stop: int) -> None:
        if stop > start:
            self._put(self._sql[start:stop], start, fixed=False)

    def _put(self, text: str, origin: int, fixed: bool) -> None:
        self._starts.append(self._length)
        self._origins.append(origin)
        self._fixed.append(fixed)
        self._parts.append(text)
        self._length += len(text)

    def _fill(self, match: re.Match[str], in_string: bool) -> None:
        value = self._value(match)
        self._put(value.replace("'", "''") if in_string else value, match.start(), fixed=True)

    def _value(self, match: re.Match[str]) -> str:
        name, mode, rest = match["name"].strip(), match["mode"], match["rest"] or ""
        place = (match.start(), match.end() - match.start())
        if not match[0].endswith("}"):
            self._problems.append(("MR1002", "the variable does not end", "close it with }", *place))
            return "NULL"
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            message = f"'{name}' is no name of a variable"
            self._problems.append(
                ("MR1002", message, "write ${NAME}, ${NAME:-default} or ${NAME:?message}", *place)
            )
            return "NULL"
        known = self._variables.get(name)
        if known is not None and (known or mode is None):
            return known
        if mode == "-":
            return rest
        if mode == "?":
            self._problems.append(("MR1004", f"variable '{name}' is needed: {rest}", _hint(name), *place))
        else:
            self._problems.append(("MR1003", f"variable '{name}' is not set", _hint(name), *place))
        return "NULL"

    def _error(
        self, text: Text, code: str, message: str, hint: str | None, offset: int, length: int
    ) -> MillraceError:
        position = text.original_position(offset, length)
        kind = Unsupported if code == "MR1962" else Invalid
        return kind(message, code=code, hint=hint, position=position, source_text=self._sql)


def _hint(name: str) -> str:
    return f"set it in the environment or with --set {name}=…, or write ${{{name}:-default}}"
