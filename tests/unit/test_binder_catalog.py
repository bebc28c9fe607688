"""The catalog: lookup without case, rules of CREATE and DROP, dependents, suggestions."""

import pyarrow as pa
import pytest

from millrace.errors import Invalid
from millrace.planner.catalog import Catalog, ChangeKind, Entry, EntryKind, suggest
from millrace.planner.logical import Rows


def entry(name: str, kind: EntryKind = EntryKind.STREAM, *depends: str) -> Entry:
    return Entry(name, kind, Rows(pa.schema([("a", pa.int64())])), depends)


@pytest.fixture
def catalog() -> Catalog:
    found = Catalog()
    found.put(entry("Trades", EntryKind.SOURCE))
    found.put(entry("big", EntryKind.STREAM, "Trades"))
    found.put(entry("bigger", EntryKind.VIEW, "BIG"))
    return found


def test_lookup_ignores_case_and_keeps_the_declared_spelling(catalog: Catalog) -> None:
    assert catalog.get("TRADES").name == "Trades"


def test_unknown_name_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match="no source, stream or table named trade") as error:
        catalog.get("trade")
    assert error.value.code == "MR1201"
    assert error.value.hint == "did you mean Trades?"


def test_dependents_are_found_through_others(catalog: Catalog) -> None:
    assert [e.name for e in catalog.dependents("trades")] == ["big", "bigger"]


def test_create_of_a_taken_name_is_refused_unless_asked_to_be_content(catalog: Catalog) -> None:
    with pytest.raises(Invalid) as error:
        catalog.check_creatable("TRADES", EntryKind.SOURCE)
    assert error.value.code == "MR1202"
    assert not catalog.check_creatable("trades", EntryKind.SOURCE, if_not_exists=True)
    assert catalog.check_creatable("other", EntryKind.SOURCE, if_not_exists=True)


@pytest.mark.parametrize(
    ("name", "kind", "code"), [("big", EntryKind.TABLE, "MR1203"), ("big", EntryKind.STREAM, "MR1204")]
)
def test_replace_needs_the_same_kind_and_no_dependents(
    catalog: Catalog, name: str, kind: EntryKind, code: str
) -> None:
    with pytest.raises(Invalid) as error:
        catalog.check_creatable(name, kind, replace=True)
    assert error.value.code == code


def test_replace_of_an_entry_that_nobody_reads(catalog: Catalog) -> None:
    assert catalog.check_creatable("bigger", EntryKind.VIEW, replace=True)
    assert catalog.put(entry("Bigger", EntryKind.VIEW)).kind is ChangeKind.REPLACED


def test_drop_with_dependents_is_refused_and_cascade_takes_the_farthest_first(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match="view bigger") as error:
        catalog.drop("big")
    assert error.value.code == "MR1206"
    dropped = catalog.drop("trades", cascade=True)
    assert [c.entry.name for c in dropped] == ["bigger", "big", "Trades"]
    assert list(catalog) == []


def test_drop_checks_the_kind(catalog: Catalog) -> None:
    with pytest.raises(Invalid) as error:
        catalog.drop("bigger", EntryKind.STREAM)
    assert (error.value.code, error.value.hint) == ("MR1205", "write VIEW bigger")
    assert catalog.drop("nothing", if_exists=True) == ()
    with pytest.raises(Invalid) as error:
        catalog.drop("nothing")
    assert error.value.code == "MR1201"


def test_a_copy_does_not_write_through(catalog: Catalog) -> None:
    catalog.copy().drop("bigger")
    assert catalog.find("bigger") is not None


def test_functions_have_names_of_their_own(catalog: Catalog) -> None:
    catalog.put(entry("trades", EntryKind.FUNCTION))
    assert catalog.get("trades").kind is EntryKind.SOURCE
    assert catalog.drop("trades", EntryKind.FUNCTION)[0].entry.kind is EntryKind.FUNCTION


def test_suggestions_ignore_case() -> None:
    assert suggest("AUCTON", ["auction", "bidder"]) == "did you mean auction?"
    assert suggest("zzz", ["auction"]) is None
