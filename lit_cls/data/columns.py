"""Which columns have the texts and the labels."""

from dataclasses import dataclass

from lit_cls.errors import UserError, quote

Column = str | int
"""A name, or a number from 0."""


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of texts and labels, by name or by number from 0; the first that a table has is taken."""

    text: tuple[Column, ...] = ("text",)
    label: tuple[Column, ...] = ("label",)
    header: bool = True
    """Whether the first line of a .csv, .tsv or .txt names the columns."""
    text_named: bool = True
    """Whether the user named the column of texts."""
    label_named: bool = True
    """Likewise; a column of labels that is not named may be missing."""


def find_columns(columns: list[str], choice: ColumnChoice, name: str, hint: str) -> tuple[int, int | None]:
    """Places of the columns of texts and labels.

    Args:
        columns: their names.
        choice: which are wanted.
        name: of the file, for messages.
        hint: follows the list of columns in a message.

    Raises:
        UserError: there is no such column, more than one, or both are the same.
    """
    known = {column.strip() for column in columns}
    if choice.header:  # else a number is of columns without names, and means none of those that have one
        known |= {str(i) for i in range(len(columns))}

    def place(role: str, wanted: tuple[Column, ...], required: bool) -> int | None:
        column = next((column for column in wanted if str(column) in known), wanted[-1] if required else None)
        return None if column is None else column_index(column, role, columns, name, hint)

    text_at = place("text", choice.text, required=True)
    label_at = place("label", choice.label, required=choice.label_named)
    assert text_at is not None, "it is required"
    if text_at != label_at:
        return text_at, label_at
    if choice.label_named:
        raise UserError(
            f"{name}: column {quote(columns[text_at])} is named for both texts and labels: "
            "change data.text_column or data.label_column"
        )
    return text_at, None


def column_index(column: Column, role: str, columns: list[str], name: str, hint: str) -> int:
    """Place of a column given by name, or by number from 0.

    Raises:
        UserError: as `find_columns`.
    """
    matches = [i for i, other in enumerate(columns) if other.strip() == str(column)]
    if len(matches) > 1:
        raise UserError(f"{name} has {len(matches)} columns named {quote(column)}: give data.{role}_column by number")
    matches = matches or [i for i in range(len(columns)) if str(i) == str(column)]
    if matches:
        return matches[0]
    found = ", ".join(quote(other) for other in columns[:20])
    raise UserError(
        f"{name} has no column {quote(column)} for the {role}s; its columns are {found}{hint}. "
        f"Name one with --data.{role}_column; a file without a header line also needs --data.header false"
    )
