"""GPT-2's byte-pair encoding, through tiktoken, from the vocabulary that ships with the package."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

PAD_ID = 50256
"""`<|endoftext|>`: GPT-2 has no pad token, the published code pads with this one."""

# The pattern of tiktoken's own "gpt2" encoding: GPT-2's, in a form that runs faster.
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # what the pattern calls \s
# A run of white space up to, without its last character, what is not white space: a piece of the
# pattern's by itself. Looked for from the run's start alone, so that no run is read twice.
_LONG_RUN = re.compile(rf"(?<![{SPACE}])[{SPACE}]{{10000,}}(?=[{SPACE}][^{SPACE}])")


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text.

    A special token's spelling inside a text, such as `<|endoftext|>`, is ordinary text. An empty
    text becomes one `<|endoftext|>`, the boundary GPT-2 was trained with, so that every text has a
    position to read.
    """
    pieces = [_pieces(text) for text in texts]
    ids = iter(_encoding().encode_ordinary_batch([piece for text in pieces for piece in text]))
    return [[i for _ in text for i in next(ids)] or [PAD_ID] for text in pieces]


def token_bytes(token_ids: Iterable[int]) -> list[int]:
    """How many bytes of its text's UTF-8 each token is; a character may be spread over several tokens."""
    return [len(_encoding().decode_single_token_bytes(i)) for i in token_ids]


def _pieces(text: str) -> list[str]:
    """The text, cut behind long runs of white space, where it changes no token.

    tiktoken panics at a million of them before a word: its pattern goes back over all of them.
    """
    if len(text) < 10_000:
        return [text]
    cuts = [0, *(run.end() for run in _LONG_RUN.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


@cache
def _encoding() -> "tiktoken.Encoding":
    # tiktoken's own loader would fetch the vocabulary, and keep a copy in the temporary folder.
    import tiktoken

    return tiktoken.Encoding(
        "gpt2",
        pat_str=_PATTERN,
        mergeable_ranks=merge_ranks(),
        special_tokens={"<|endoftext|>": PAD_ID},
        explicit_n_vocab=PAD_ID + 1,
    )


def merge_ranks() -> dict[bytes, int]:
    """Every token but the special one: its bytes, and its id, which is its rank in merging.

    The first 256 ids are the single bytes, printable ones first, then one id per merge (openai/gpt-2, `encoder.py`).
    """
    spelt = spelt_bytes()
    byte_of = {character: byte for byte, character in spelt.items()}
    ranks = {bytes([byte]): i for i, byte in enumerate(spelt)}
    for pair in merges():
        ranks[bytes(byte_of[c] for c in "".join(pair))] = len(ranks)
    return ranks


def spelt_bytes() -> dict[int, str]:
    """Each byte, in the order of the ids, and the printable character that the merge list spells it as."""
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def merges() -> list[tuple[str, str]]:
    """The packaged merge list, in its order and spelling."""
    text = files("lit_cls.data").joinpath("vocabulary", "vocab.bpe").read_text(encoding="utf-8")
    pairs = (line.split(" ") for line in text.split("\n")[1:-1])
    return [(left, right) for left, right in pairs]
