"""Our tokenizer, read by another library, token by token."""

import pytest
from test_tokenizer import TEXTS
from tokenizers import Tokenizer

from lit_cls.data.tokenizer import PAD_ID, encode
from lit_cls.exports.tokenizer_file import PAD_TOKEN, write_tokenizer


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    assert "Modified MIT License" in (folder / "NOTICE").read_text(encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_same_tokens(theirs: Tokenizer) -> None:
    assert [theirs.encode(text).ids for text in TEXTS] == encode(TEXTS)
    assert theirs.get_vocab_size() == PAD_ID + 1


def test_the_same_tokens_around_every_character(theirs: Tokenizer) -> None:
    """Each library has its own idea of what a letter, a digit and white space are."""
    pad = {ord(PAD_TOKEN[0])}  # alone it is ordinary too, but no text has it
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x3000 or c % 97 == 0)]
    texts = [f"a{c}{c} {c}1{c}" for c in characters if ord(c) not in pad]
    assert [found.ids for found in theirs.encode_batch(texts)] == encode(texts)


def test_the_token_itself_has_a_spelling_that_no_text_has(theirs: Tokenizer) -> None:
    assert theirs.encode(PAD_TOKEN).ids == [PAD_ID]
    assert PAD_ID not in theirs.encode("<|endoftext|>").ids
    assert theirs.encode("").ids == []
    assert theirs.decode(theirs.encode("naïve 文字 🙂").ids) == "naïve 文字 🙂"
