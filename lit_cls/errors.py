"""The two exceptions whose message is all that a person needs, and how such a message quotes what it was given."""


class UserError(ValueError):
    """Wrong input: the message names the value, the rule it breaks and a hint.

    The command prints it without a traceback and exits with 2.
    """


class RunError(RuntimeError):
    """What failed while running, by no mistake in the input: a full disk, say.

    The command prints it without a traceback and exits with 1.
    """


def quote(value: object) -> str:
    """A value as a message quotes it: characters that cannot be printed are escaped, long values are truncated."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text):,} characters)"
