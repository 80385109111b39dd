"""The one exception that stands for a mistake of the user's."""


class UserError(ValueError):
    """Wrong input: the message names the value, the rule it breaks and the way out.

    The command prints it without a traceback and exits with 2.
    """
