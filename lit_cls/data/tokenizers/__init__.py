"""Tokenizers by name."""

from functools import cache

from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.data.tokenizers.gpt2 import GPT2Tokenizer
from lit_cls.errors import UserError

TOKENIZERS: dict[str, type[Tokenizer]] = {"gpt2": GPT2Tokenizer}


@cache
def tokenizer_for(name: str) -> Tokenizer:
    """The tokenizer of this name, one for all callers, its vocabulary loaded at the first use; a UserError if none."""
    if name not in TOKENIZERS:
        raise UserError(f"there is no tokenizer {name!r}: the tokenizers are {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]()
