"""Errors of the parsers, in the words of the command line instead of Python's types."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from lit_cls.commands.config_safety import ALLOWED_PACKAGES
from lit_cls.errors import UserError
from lit_cls.model.adapters import ADAPTERS, moved_option_hint

# jsonargparse's names of types, and the words for them.
_KINDS = {
    "dict[str, float]": "a number for each label, '{spam: 3, ham: 1}'",
    "<class 'int'>": "a whole number",
    "Expected a int": "a whole number",
    "<class 'float'>": "a number",
    "Expected a float": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "tuple[float, float, float]": "three fractions",
    "tuple[str, str, str]": "three files",
    "<class 'tuple'>": "a list",
}


def describe_parser_error(message: str, subcommand: str) -> str:  # noqa: PLR0911 - one for each kind of message
    """Rewrites a message of jsonargparse: the option, the rule, the value, and where all options are listed."""
    hint = f"\nlit_cls {subcommand} --help lists every option and its values"
    patterns = (r'Parser key "([\w.]+)"', r'Problem with given class_path.*\s+Parser key "(\w+)"')
    key = ".".join(found[1] for pattern in patterns if (found := re.search(pattern, message)))
    if denied := re.search(r"(--[\w.]+)?.*Importing '([^']+)' is not allowed", message, re.DOTALL):
        packages = ", ".join(ALLOWED_PACKAGES)
        return (
            f"{denied[1] or key} names {denied[2]}: a configuration that others may have written can only name classes "
            f"of {packages}, because naming one runs code. Leave it out; fit takes classes of your own"
        )
    no_option = r"unrecognized arguments: --([\w.-]+)|does not accept option '([\w.]+)'|Option '(\w+)' is not accepted"
    if unknown := re.search(no_option, message, re.IGNORECASE):
        name = unknown[1] or unknown[2] or f"{key}.{unknown[3]}"
        return f"there is no option --{name}{moved_option_hint(name)}{hint}"
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    allowed = _allowed(message)
    if "Adapter is abstract" in message and value and re.match(r"NestedArg\(|\{", value[1]):
        names = " or ".join(ADAPTERS)
        return f"model.adapter has options, but not which adapter it is: pass --model.adapter {names}{hint}"
    if key and value and allowed:
        nested = re.fullmatch(r"NestedArg\(key='(.*)', val='?(.*?)'?\)", value[1])
        name, given = (f"{key}.{nested[1]}", nested[2]) if nested else (key, value[1])
        choices = " or ".join([", ".join(allowed[:-1]), allowed[-1]]).removeprefix(" or ")
        return f"{name} must be {choices}, not {given}{moved_option_hint(name, given)}{hint}"
    if key and value:
        return f"{key} cannot be {value[1]}{hint}"
    if re.search("NoneType|object has no attribute|unsupported operand", message):  # from the parser's own code
        return f"{key or 'the configuration'} cannot be read: check its value{hint}"
    return message.replace("Parser key ", "") + hint


def describe_class_error(message: str) -> str:
    """Keeps the complaint of a class that the configuration names; leaves out jsonargparse's list of types."""
    if problem := re.search(r"Problem with given class_path.*\n.*", message):
        return " ".join(problem[0].split())
    lines = [line.strip(" -") for line in message.splitlines()]
    noise = "<class |Subtypes|Errors:|^Given value|^Does not validate|^Expected a|^$"
    own = [line for line in lines if not re.search(noise, line)]
    return " ".join(" ".join(own or lines).split())


def _allowed(message: str) -> list[str]:
    message = re.sub(r"Given value type: .*", "", message)
    literals = re.findall(r"Literal\[(.*?)\]", message)
    named = dict.fromkeys(word.strip("' ") for group in literals for word in group.split(","))
    kinds = dict.fromkeys(words for kind, words in _KINDS.items() if kind in message)
    if "dict[str, float]" in message:
        kinds.pop("a number", None)  # only as one of several
    adapters = ADAPTERS if "base.Adapter'" in message and "Problem with given class_path" not in message else ()
    return [*adapters, *named, *kinds]


def parse(parser: LightningArgumentParser, words: list[str]) -> Namespace:
    """Parses the words of a command line, whatever they are; `user_errors` describes the errors."""
    try:
        return parser.parse_args(words)
    except (ArgumentError, UserError, UnicodeDecodeError):
        raise
    except Exception as error:  # of any type: a value that jsonargparse or PyYAML did not expect
        raise UserError(f"the configuration cannot be read: {shlex.join(words[1:])}: {error}") from error


@contextmanager
def user_errors(subcommand: str) -> Iterator[None]:
    """Turns errors that the libraries find in options and files into user errors."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(describe_parser_error(str(error), subcommand)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration is not UTF-8: {error}") from error
    except MisconfigurationException as error:
        raise UserError(f"{error}") from error
