"""String, pattern, encoding and URL functions against DuckDB, or PostgreSQL's documented answer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tests.unit.function_oracle import Constant as C
from tests.unit.function_oracle import check, evaluate

from millrace.errors import Invalid
from millrace.operators.functions.row_error import RowError

WORDS = [
    "hello",
    "",
    None,
    "straße ÑANDÚ",
    "  a b  ",
    "日本語テキスト",
    "x",
    "naïve🙂smile",
    "O'Neil-smith 2nd",
]
NUMBERS = [0, 1, None, 3, -1, 2, 10, -2, 5]
URLS = [
    "https://www.nexmark.com/abc/d_e/item.htm?query=1&channel_id=42",
    "channel_id=7&x=1",
    "https://a/b",
    None,
    "",
    "https://h/x?my_channel_id=9",
    "?a=1&channel_id=&channel_id=3",
    "ü&channel_id=日本&z",
]
EMAILS = ["a.b@c.org", None, "", "no mail", "x@y.de, z@w.com", "été@ü.fr"]

CASES: list[tuple[str, list[Any], str | list[Any]]] = [
    ("upper", [WORDS], "upper(a)"),
    ("ucase", [["añb", None]], "upper(a)"),
    ("lower", [WORDS], "lower(a)"),
    ("reverse", [["abc", "", None, "añ"]], "reverse(a)"),
    ("length", [WORDS], "length(a)"),
    ("char_length", [WORDS], "length(a)"),
    ("octet_length", [WORDS], "strlen(a)"),
    ("octet_length", [pa.array([b"ab\0", None, b""])], "octet_length(a)"),
    ("bit_length", [WORDS], "bit_length(a)"),
    ("trim", [["  a b ", "", None, "\tx ", "   "]], "trim(a)"),
    ("btrim", [["xxaxx", "", None, "xyx"], C("x")], "trim(a, 'x')"),
    ("trim", [["xyaxx", "b", None], ["xy", None, "x"]], "trim(a, b)"),
    ("ltrim", [["  a ", "", None], C(" ")], "ltrim(a)"),
    ("rtrim", [["  a ", "", None]], "rtrim(a)"),
    ("substring", [WORDS, C(2)], "substring(a, 2)"),
    ("substring", [WORDS, C(2), C(3)], "substring(a, 2, 3)"),
    ("substring", [["hello", "añb", None], C(-1), C(3)], ["h", "a", None]),
    ("substr", [WORDS, pa.array([1, 2, 3, None, 5, 6, 1, 2, 30])], "substring(a, b)"),
    ("substring", [["alphabet"] * 3, [3, 0, 9], [2, 3, 1]], ["ph", "al", ""]),
    ("left", [WORDS, C(2)], "left(a, 2)"),
    ("left", [WORDS, NUMBERS], "left(a, b)"),
    ("right", [WORDS, NUMBERS], "right(a, b)"),
    ("concat", [WORDS, NUMBERS], "concat(a, b)"),
    ("concat_ws", [C("-"), WORDS, NUMBERS], "concat_ws('-', a, b)"),
    ("concat_ws", [["-", None], ["a", "b"], ["c", "d"]], "concat_ws(a, b, c)"),
    ("||", [WORDS, ["!", None, "x", "y", "", "z", "é", "", "1"]], "a || b"),
    ("||", [WORDS, NUMBERS], "a || b"),
    ("replace", [WORDS, C("a"), C("<>")], "replace(a, 'a', '<>')"),
    ("replace", [["aaa", "", "abc", None], ["a", "", "", "x"], ["b", "x", "y", "z"]], "replace(a, b, c)"),
    ("repeat", [["ab", "é", "", None], [2, 3, 5, 1]], "repeat(a, b)"),
    ("repeat", [["ab", "é"], [0, -1]], ["", ""]),
    ("space", [[0, 3, None]], ["", "   ", None]),
    ("lpad", [["hi", "hello", None, "é"], C(4), C("xy")], "lpad(a, 4, 'xy')"),
    ("lpad", [["hi", "hello"], [5, 0]], ["   hi", ""]),
    ("rpad", [["hi", "hello", None, "é"], C(4), C("xy")], "rpad(a, 4, 'xy')"),
    ("strpos", [WORDS, C("l")], "strpos(a, 'l')"),
    ("instr", [["añbñ", None, "", "b"], ["ñ", "x", "", "b"]], "instr(a, b)"),
    ("position", [C("b"), ["añb", "b", "", None]], "position('b' IN a)"),
    ("locate", [C("a"), ["banana"] * 4, [1, 3, 7, 0]], [2, 4, 0, 0]),
    ("split_part", [["a,b,c", "", "a", None, ",x"], C(","), C(2)], "split_part(a, ',', 2)"),
    ("split_part", [["a::b::c", "::", "é::ü"], C("::"), C(2)], "split_part(a, '::', 2)"),
    ("split_part", [["a,b,c", "x"], C(","), C(-1)], ["c", "x"]),
    ("split_part", [["a,b,c", "x y", None], [",", " ", ","], [3, 2, 1]], ["c", "y", None]),
    ("split_index", [URLS, C("/"), C(3)], ["abc", None, "b", None, None, "x?my_channel_id=9", None, None]),
    ("split_index", [["a/b/c", "a", None], ["/", "/", "/"], [1, 1, 0]], ["b", None, None]),
    ("split", [["a,b,c", "", None, ","], C(",")], "string_split(a, ',')"),
    ("string_split", [["a,b", "xy"], [",", "y"]], "string_split(a, b)"),
    ("initcap", [["hello WORLD-foo", "o'neil 2nd", "", None, "été ñ"]], ["Hello World-Foo", "O'Neil 2nd", "", None, "Été Ñ"]),
    ("ascii", [["a", "é", "🙂x", None]], "unicode(a)"),
    ("ascii", [[""]], [0]),
    ("chr", [[97, 233, 128578, None]], "chr(a::INT)"),
    ("starts_with", [WORDS, C("he")], "starts_with(a, 'he')"),
    ("starts_with", [WORDS, WORDS], "starts_with(a, a)"),
    ("ends_with", [WORDS, C("lo")], "suffix(a, 'lo')"),
    ("ends_with", [["ab", None], ["b", "b"]], "suffix(a, b)"),
    ("contains", [WORDS, C("ñ")], "contains(a, 'ñ')"),
    ("contains", [["abc", "x", None], ["b", "", "y"]], "contains(a, b)"),
    ("translate", [["12345", "añb", None, ""], C("143"), C("ax")], ["a2x5", "añb", None, ""]),
    ("overlay", [["Txxxxas", None], C("hom"), C(2), C(4)], ["Thomas", None]),
    ("overlay", [["abcdef", "é"], C("XY"), C(3)], ["abXYef", "éXY"]),
    ("count_char", [["banana", "", None, "ccc"], C("a")], [3, 0, None, 0]),
    ("count_char", [["ñañ", None], C("ñ")], [2, None]),
    ("levenshtein", [["kitten", "", None, "é"], ["sitting", "abc", "x", "e"]], [3, 3, None, 1]),
    ("like", [WORDS, C("h%")], "a LIKE 'h%'"),
    ("like", [WORDS, C("%l%")], "a LIKE '%l%'"),
    ("like", [WORDS, C("%o")], "a LIKE '%o'"),
    ("like", [WORDS, C("_")], "a LIKE '_'"),
    ("like", [["a%b", "axb", "a\nb", None], C("a%b")], "a LIKE 'a%b'"),
    ("like", [["a%b", "axb", "a_b"], C("a!%b"), C("!")], "a LIKE 'a!%b' ESCAPE '!'"),
    ("like", [["a.c", "abc", "x"], ["a.c", "a_c", "%"]], "a LIKE b"),
    ("ilike", [["Hello", "ÑANDÚ", None], C("%ñ%")], [False, True, None]),
    ("similar to", [["abc", "abd", "xabc", None], C("%(b|d)%")], [True, True, True, None]),
    ("similar to", [["abc", "abd", "a.c"], C("a.c")], [False, False, True]),
    ("regexp_like", [EMAILS, C("[a-z]+@")], "regexp_matches(a, '[a-z]+@')"),
    ("regexp_like", [["ABC", "x"], C("b"), C("i")], [True, False]),
    ("regexp_like", [["abc", "x"], ["^a", "y"]], [True, False]),
    ("~*", [["ABC", "x", None], C("b")], [True, False, None]),
    ("regexp_extract", [EMAILS, C(r"(\w+)@(\w+)"), C(2)], ["c", None, None, None, "y", None]),
    ("regexp_extract", [EMAILS, C(r"\w+@")], ["b@", None, None, None, "x@", None]),
    ("regexp_extract", [URLS, C("(&|^)channel_id=([^&]*)"), C(2)], ["42", "7", None, None, None, None, "", "日本"]),
    ("regexp_extract", [["ab12", "x", None], [r"\d", r"(x)", "a"], [0, 1, 0]], ["1", "x", None]),
    ("regexp_replace", [WORDS, C("[aeo]"), C("<\\0>")], r"regexp_replace(a, '[aeo]', '<\0>')"),
    ("regexp_replace", [WORDS, C("(l+)"), C("[\\1]"), C("g")], r"regexp_replace(a, '(l+)', '[\1]', 'g')"),
    ("regexp_replace", [["aXbX", None], ["x", "y"], ["-", "-"], ["gi", "g"]], ["a-b-", None]),
    ("regexp_count", [["banana", "", None], C("an")], [2, 0, None]),
    ("regexp_split_to_array", [["a1b22c", "x", None], C("[0-9]+")], "string_split_regex(a, '[0-9]+')"),
    ("regexp_extract_all", [["a1b22c", "x", None], C("[0-9]+")], "regexp_extract_all(a, '[0-9]+')"),
    ("md5", [WORDS], "md5(a)"),
    ("sha1", [WORDS], "sha1(a)"),
    ("sha256", [WORDS], "sha256(a)"),
    ("sha224", [["a"]], ["abd37534c7d9a2efb9465de931cd7055ffdb8879563ae98078d6d6d5"]),
    ("sha384", [[None, ""]], [None, "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b"]),
    ("sha512", [[""]], ["cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"]),
    ("crc32", [["abc", None]], [891568578, None]),
    ("to_hex", [[0, 255, None, 2**40]], "lower(to_hex(a))"),
    ("to_hex", [["hi", ""]], "lower(hex(a))"),
    ("from_hex", [["6869", "", None]], [b"hi", b"", None]),
    ("to_base64", [["hello", "", None, "é"]], "to_base64(encode(a))"),
    ("from_base64", [["aGVsbG8=", "", None]], ["hello", "", None]),
    ("unbase64", [["aGVsbG8="]], [b"hello"]),
    ("encode", [["é", None]], [b"\xc3\xa9", None]),
    ("decode", [pa.array([b"\xc3\xa9", None]), C("utf-8")], ["é", None]),
    ("url_encode", [["a b/é", "", None]], "url_encode(a)"),
    ("url_decode", [["a%20b%2F%C3%A9", "", None]], "url_decode(a)"),
    ("url_extract_host", [URLS[:4]], ["www.nexmark.com", None, "a", None]),
    ("url_extract_path", [URLS[:4]], ["/abc/d_e/item.htm", "channel_id=7&x=1", "/b", None]),
    ("url_extract_query", [URLS[:3]], ["query=1&channel_id=42", None, None]),
    ("url_extract_protocol", [URLS[:3]], ["https", None, "https"]),
    ("url_extract_fragment", [["http://x/#top", "http://x/"]], ["top", None]),
    ("url_extract_port", [["http://x:80/", "http://x/"]], ["80", None]),
    ("url_extract_parameter", [URLS[:3], C("channel_id")], ["42", None, None]),
    ("parse_url", [URLS[:2], C("HOST")], ["www.nexmark.com", None]),
    ("url_extract", [URLS[:2], C("QUERY"), C("query")], ["1", None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_function_gives_the_reference_answer(
    name: str, arguments: list[Any], expected: str | list[Any]
) -> None:
    check(name, arguments, expected)


def test_format_fills_by_order_and_by_number() -> None:
    got = evaluate("format", [C("%s and %2$s %% %L"), ["a'b", None], ["q'", "z"]]).to_pylist()
    assert got == ["a'b and q' % 'q'''", " and z % 'z'"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("substring", [["a", "b"], [1, 1], [1, -1]]),
        ("split_part", [["a", "b"], C(","), [1, 0]]),
        ("chr", [[97, 0]]),
        ("repeat", [["a", "b"], [1, 1 << 40]]),
        ("from_base64", [["aGVsbG8=", "???"]]),
        ("from_hex", [["00", "zz"]]),
        ("decode", [pa.array([b"a", b"\xff"]), C("utf-8")]),
        ("regexp_like", [["a", "b"], ["a", "("]]),
        ("url_extract", [["http://x", "http://y"], ["HOST", "NOTHING"]]),
    ],
)
def test_bad_value_is_the_error_of_its_row(name: str, arguments: list[Any]) -> None:
    with pytest.raises(RowError) as caught:
        evaluate(name, arguments)
    assert caught.value.rows.tolist() == [False, True]
    assert caught.value.code.startswith("MR20")


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?=x)"])
def test_bad_constant_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="regular expression") as caught:
        evaluate("regexp_like", [["a"], C(pattern)])
    assert caught.value.code == "MR1214"


@pytest.mark.parametrize(
    "pattern",
    [
        "(&|^)channel_id=([^&]*)",
        "[?&]id=([^&]+)",
        "(?:^|;)k=(.*)",
        r"user/(\d+)",
        r"n=(\w+)",
        "a=([a-c]+)",
        r"x\.y=([^,;]*)",
    ],
)
def test_scanned_patterns_agree_with_duckdb(pattern: str) -> None:
    group = 2 if pattern.startswith("(&") else 1
    texts = ["?id=1&id=2", "&channel_id=&channel_id=5", "channel_id=é&x", "k=v;k=w", ";k=1\n2", "user/12/user/3", "user/x", "n=",
             "n=a_1-b", "a=", "a=abcd", "xa=d a=b", "x.y=1;2", "xzy=1", "", None, "channel_id", "id=5&id=6"]  # fmt: skip
    got = evaluate("regexp_extract", [texts, C(pattern), C(group)]).to_pylist()
    import re

    wanted = [
        None if t is None or (m := re.search(pattern, t, re.ASCII)) is None else m[group] for t in texts
    ]
    assert got == wanted
