"""The two exceptions whose message is all that a person needs."""


class UserError(ValueError):
    """Wrong input: the message names the value, the rule it breaks and the way out.

    The command prints it without a traceback and exits with 2.
    """


class RunError(RuntimeError):
    """What failed while running, by no mistake in the input: a full disk, say.

    The command prints it without a traceback and exits with 1.
    """
