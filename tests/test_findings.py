"""Findings: which one is refused, how many rows one names, and faults that are raised at once."""

import pytest

from lit_cls.data.findings import Finding, RowFaults, and_more, first_ten, refuse, rows_named
from lit_cls.errors import UserError


def test_refuse_raises_the_first_that_refuses() -> None:
    notes = [Finding("a", "only a note", refuses=False)]
    refuse(notes)
    with pytest.raises(UserError, match=r"^the first$"):
        refuse([*notes, Finding("b", "the first"), Finding("c", "the second")])


def test_faults_of_one_kind_are_one_finding() -> None:
    faults = RowFaults("some.csv")
    faults.add("nested text", "row", 2, "the text of row 2 is a list")
    faults.add("json", "line", 4, "line 4 is not JSON")
    faults.add("nested text", "row", 5, "the text of row 5 is an object", ". Hint")
    first, second = faults.findings()
    assert (first.kind, first.rows, first.lines) == ("nested", [2, 5], [])
    assert first.message == "some.csv: the text of row 2 is a list; likewise 1 more (row 5)"
    assert (second.kind, second.rows, second.lines) == ("json", [], [4])


def test_a_fault_may_be_raised_at_once() -> None:
    with pytest.raises(UserError, match=r"^standard input: row 7 has 1 field\. Quote it$"):
        RowFaults("standard input", at_once=True).add("ragged", "row", 7, "row 7 has 1 field", ". Quote it")


def test_rows_in_words() -> None:
    assert rows_named([3]) == "row 3 has"
    assert rows_named([3, 5]) == "2 rows (row 3, 5) have"
    assert first_ten(list(range(1, 12))) == "row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"
    assert first_ten(list(range(1, 11))) == "row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert and_more([4], "row") == ""
    assert and_more(list(range(1, 13)), "line") == "; likewise 11 more (line 2, 3, 4, 5, 6, 7, 8, 9, 10, …)"
