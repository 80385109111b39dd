"""Predictions as CSV, JSON lines and lines for a person: columns and values."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from lit_cls.commands.prediction_writer import PredictionWriter, output_format
from lit_cls.errors import UserError

SHARES = {"ham": 0.25, "spam": 0.75}
OURS = ["label", "probability", "probability_ham", "probability_spam", "truncated"]


def written(form: str, columns: list[str], rows: list[Any], cut: bool = False) -> tuple[str, list[str]]:
    stream, logged = io.BytesIO(), list[str]()
    writer = PredictionWriter(stream, form, columns, ("ham", "spam"), logged.append)  # type: ignore[arg-type]
    for row in rows:
        writer.write(row, "spam", SHARES, cut)
    assert writer.n == len(rows)
    return stream.getvalue().decode(), logged


def test_csv_keeps_every_column_in_its_order() -> None:
    awkward = ['a "quoted"\nnew line, and a comma', "", "é🙂", " padded ", "lone\rreturn", "\r", "a\r\nb"]
    text, logged = written("csv", ["id", "text", "id"], [[str(i), value, "x"] for i, value in enumerate(awkward)])
    names, *rows = csv.reader(io.StringIO(text, newline=""))
    assert names == ["id", "text", "id", *OURS]
    assert rows == [[str(i), value, "x", "spam", "0.75", "0.25", "0.75", "false"] for i, value in enumerate(awkward)]
    assert logged == []
    assert text.count("\r") == 3  # of the texts alone
    assert written("csv", ["text"], [])[0] == ",".join(["text", *OURS]) + "\n"


def test_json_lines_keep_nested_fields_and_their_order() -> None:
    rows = [{"x": {"y": [1, None, "é"]}, "text": "a\nb", "n": 10**30}, {"text": None, "more": 1.5}]
    text, _ = written("jsonl", ["x", "text", "n"], rows, cut=True)
    found = [json.loads(line) for line in text.splitlines()]
    prediction = dict(zip(OURS, ["spam", 0.75, 0.25, 0.75, True], strict=True))
    assert found == [{**row, **prediction} for row in rows]
    assert list(found[1]) == ["text", "more", *OURS]
    with pytest.raises(UserError, match="two columns are named 'a', and a JSON object has each name once: write CSV"):
        written("jsonl", ["a", "b", "a"], [])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_of_a_name_of_ours_is_renamed_and_reported_once(form: str) -> None:
    columns = ["label", "text", "input_label", "truncated"]
    text, logged = written(form, columns, [["ham", "a", "b", "no"]] * 2)
    expected = {"input_input_label": "ham", "text": "a", "input_label": "b", "input_truncated": "no"}
    rows = (
        list(csv.DictReader(io.StringIO(text))) if form == "csv" else [json.loads(line) for line in text.splitlines()]
    )
    for row in rows:
        assert list(row) == [*expected, *OURS]
        assert {name: row[name] for name in expected} == expected
        assert row["label"] == "spam"
    assert logged == [
        "note: the input's column 'label' is 'input_input_label' in the output",
        "note: the input's column 'truncated' is 'input_truncated' in the output",
    ]


def test_values_that_csv_has_no_kind_for() -> None:
    row = {"text": "a", "n": 1.5, "none": None, "yes": True, "deep": {"é": [1]}, "nan": float("nan"), "half": "\ud800"}
    text, _ = written("csv", list(row), [row])
    assert next(csv.DictReader(io.StringIO(text))) == {
        **{"text": "a", "n": "1.5", "none": "", "yes": "true", "deep": '{"é": [1]}', "nan": "", "half": "?"},
        **dict(zip(OURS, ["spam", "0.75", "0.25", "0.75", "false"], strict=True)),
    }
    assert json.loads(written("jsonl", list(row), [row])[0])["nan"] is None
    with pytest.raises(UserError, match="row 2 has 'new', which the first row does not have.*--output_format jsonl"):
        written("csv", ["text"], [{"text": "a"}, {"text": "b", "new": 1}])


def test_lines_for_a_person() -> None:
    assert written("lines", ["text"], [["a  b\nc"]]) == ("spam\tham 0.2500  spam 0.7500\ta b c\n", [])
    assert written("lines", ["text"], [["w"]], cut=True)[0].endswith(
        "w  (truncated: longer than the classifier reads)\n"
    )


def test_the_name_of_a_file_says_what_is_written() -> None:
    assert [output_format(Path(name), None) for name in ("a.csv", "a.JSONL", "a.ndjson")] == ["csv", "jsonl", "jsonl"]
    assert output_format(Path("a.txt"), "csv") == "csv"
    with pytest.raises(UserError, match="are different formats"):
        output_format(Path("a.csv"), "jsonl")
    with pytest.raises(UserError, match="a name that ends in .csv or .jsonl, or the format with --output_format"):
        output_format(Path("a.txt"), None)
