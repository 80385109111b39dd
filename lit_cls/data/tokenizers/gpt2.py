"""GPT-2's byte-pair encoding, through tiktoken, from the vocabulary that ships with the package."""

import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import as_file, files
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lit_cls.data.tokenizers.base import WHITESPACE

if TYPE_CHECKING:
    import tiktoken

VOCABULARY = files("lit_cls.data") / "vocabulary"
# The pattern of tiktoken's own "gpt2" encoding: GPT-2's, in a form that runs faster.
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# White space up to the last blank before a word, which the pattern makes a piece by itself. Searched from the start
# of a run alone, so that no run is read twice.
_LONG_RUN = re.compile(rf"(?<![{WHITESPACE}])[{WHITESPACE}]{{10000,}}(?=[{WHITESPACE}][^{WHITESPACE}])")


class GPT2Tokenizer:
    """Byte-level byte-pair encoding (Radford et al., 2019; openai/gpt-2, `encoder.py`).

    A special token's spelling inside a text, such as `<|endoftext|>`, is ordinary text. An empty text becomes one
    `<|endoftext|>`, the boundary GPT-2 was trained with.
    """

    pad_id = 50256  # `<|endoftext|>`: GPT-2 has no pad token, the published code pads with this one
    pad_token = "\ufdd0<|endoftext|>"  # U+FDD0 is a noncharacter: no text spells the token

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        pieces = [_pieces(text) for text in texts]
        ids = iter(self._encoding.encode_ordinary_batch([piece for text in pieces for piece in text]))
        return [[i for _ in text for i in next(ids)] or [self.pad_id] for text in pieces]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token, in characters; those of an empty text's one token are both 0."""
        if not text:
            return [(0, 0)]
        character = [i for i, c in enumerate(text) for _ in c.encode("utf-8", "surrogatepass")]  # of each byte
        lengths = (len(self._encoding.decode_single_token_bytes(i)) for i in self.encode([text])[0])
        return [(character[a], character[b - 1] + 1) for a, b in pairwise(accumulate(lengths, initial=0))]

    def write(self, folder: Path) -> None:
        """Writes `tokenizer.json`, which gives an empty text no token, and the vocabulary's licence."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        pairs = _merges()
        tokens = [*_spelling_of_bytes().values(), *(left + right for left, right in pairs), self.pad_token]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(self.pad_token, special=True, normalized=False)])
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        with as_file(VOCABULARY / "NOTICE") as notice:
            shutil.copyfile(notice, folder / "NOTICE")

    @cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        import tiktoken  # whose own loader would fetch the vocabulary, and keep a copy in the temporary folder

        special = {"<|endoftext|>": self.pad_id}
        return tiktoken.Encoding("gpt2", pat_str=_PATTERN, mergeable_ranks=merge_ranks(), special_tokens=special)


def merge_ranks() -> dict[bytes, int]:
    """The id of every token but the special one, by its bytes: the single bytes first, then one id per merge."""
    spelling = _spelling_of_bytes()
    byte_of = {character: byte for byte, character in spelling.items()}
    tokens = [*spelling.values(), *(left + right for left, right in _merges())]
    return {bytes(byte_of[c] for c in token): i for i, token in enumerate(tokens)}


def _spelling_of_bytes() -> dict[int, str]:
    """Each byte, in the order of the ids, and the printable character that stands for it in the merge list."""
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = (b for b in range(256) if b not in printable)
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _merges() -> list[tuple[str, str]]:
    text = (VOCABULARY / "vocab.bpe").read_text(encoding="utf-8")
    return [(left, right) for left, _, right in (line.partition(" ") for line in text.split("\n")[1:-1])]


def _pieces(text: str) -> list[str]:
    """The text, divided behind long runs of white space, where it changes no token.

    tiktoken panics at a million blanks before a word: its pattern backtracks over all of them.
    """
    if len(text) < 10_000:
        return [text]
    bounds = [0, *(run.end() for run in _LONG_RUN.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]
