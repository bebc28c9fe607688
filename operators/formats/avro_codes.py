"""What Avro programs may say, and how records fail. Numbers only: shared by compiler and kernels."""

from __future__ import annotations

END = 0
LONG = 1
INT = 2
STRING = 3
BYTES = 4
SKIP_BYTES = 5
UNION = 6
JUMP = 7
NULL = 8
DOUBLE = 9
FLOAT = 10
BOOLEAN = 11
LONG_DOUBLE = 12
FIXED = 13
SKIP = 14
DECIMAL = 15
ENUM = 16
SET = 17
SKIP_LONG = 18
LOOP = 19
NEXT = 20
ADVANCE = 21
FAIL = 22

TRUNCATED = 1
BAD_VARINT = 2
BAD_UTF8 = 3
BAD_LENGTH = 4
BAD_BRANCH = 5
BAD_SYMBOL = 6
NO_MATCH = 7
TOO_PRECISE = 8
LEFT_OVER = 9
OUT_OF_RANGE = 10
BAD_BOOLEAN = 11

REASONS = {
    TRUNCATED: "the record ends before it is whole",
    BAD_VARINT: "a number has more than ten bytes",
    BAD_UTF8: "text is no UTF-8",
    BAD_LENGTH: "a length or a count can not be",
    BAD_BRANCH: "a union has no such branch",
    BAD_SYMBOL: "an enum symbol that the reader does not know",
    NO_MATCH: "the writer's type has no match in the reader's",
    TOO_PRECISE: "a decimal has more digits than its precision",
    LEFT_OVER: "bytes are left behind the record",
    OUT_OF_RANGE: "a number is out of range",
    BAD_BOOLEAN: "a boolean is neither 0 nor 1",
}
"""Why a record did not decode, by status."""

PUT_END = 0
PUT_NULLABLE = 1
PUT_REQUIRED = 2
PUT_LONG = 3
PUT_BITS = 4
PUT_BYTES = 5
PUT_FIXED = 6
PUT_DECIMAL = 7
PUT_CONSTANT = 8
PUT_ITEMS = 9
PUT_NEXT = 10
