"""The packaged vocabulary is OpenAI's, and encoding is GPT-2's, token by token."""

import hashlib
import json
import socket
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import SHARED

from lit_cls.data import tokenizer
from lit_cls.data.sources import read_sms_spam
from lit_cls.data.tokenizer import PAD_ID, encode, merge_ranks, token_bytes

VOCABULARY = files("lit_cls.data").joinpath("vocabulary", "vocab.bpe")

TEXTS = [
    "Hello, world!",
    " leading and trailing ",
    "  two  spaces   three\tand\ttabs\t",
    "\n\nnew\nlines \n and\r\nmore\n",
    "   ",
    "\u00a0no-break\u2003em space\u200b",
    "I'm you're he's we'll they've I'd can't 'tis O'Neil's 'S 'LL",
    "it’s curly",
    "12345 3.14159 1,000,000 0x1F ½ ² ٣ Ⅷ",
    "naïve café Ünïcödé ÅÄÖ e\u0301",
    "привет мир",
    "你好，世界",
    "こんにちは",
    "한국어",
    "مرحبا بالعالم",
    "🙂👍🏽👨‍👩‍👧‍👦🇫🇷",
    "<|endoftext|>",
    "before<|endoftext|>after <|endoftext|>",
    "<|endoftext",
    "a\0b\x01\x7f\x80\xad\xff",
    "!!!???...---___***",
    "URGENT! You've won £1000!! Txt WIN to 80012 @ www.win-now.example/go?x=1&y=2",
    "a" * 500,
    "xyz" * 300,
    " " * 200 + "end",
    "\t" + " " * 30_000 + "end\n" + "\u2003\u3000" * 8_000 + " of \x1f" + "\n" * 20_000,
    "\ufeffbyte order mark \ufffd",
]


def spelling_of_bytes() -> dict[int, str]:
    """GPT-2's printable spelling of each byte, as openai/gpt-2 defines it: by ranges of characters."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def test_the_merge_list_is_openais() -> None:
    digest = hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
    assert digest == "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def test_ids_are_those_of_openais_encoder_json() -> None:
    # OpenAI publishes the ids as a second file; it can be written anew from the merge list.
    spelling = spelling_of_bytes()
    by_id = sorted(merge_ranks().items(), key=lambda item: item[1])
    encoder = {"".join(spelling[byte] for byte in token): i for token, i in by_id} | {"<|endoftext|>": PAD_ID}
    digest = hashlib.sha256(json.dumps(encoder).encode()).hexdigest()
    assert digest == "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"


def test_every_id_once() -> None:
    ranks = merge_ranks()
    assert sorted(ranks.values()) == list(range(PAD_ID))
    assert {bytes([byte]) for byte in range(256)} <= ranks.keys()  # whatever the text, there is an encoding


@pytest.fixture(scope="module")
def reference() -> object:
    """An independent implementation of byte-level BPE, from the merge list alone."""
    tokenizers = pytest.importorskip("tokenizers")
    merges = [tuple(line.split(" ")) for line in VOCABULARY.read_text(encoding="utf-8").split("\n")[1:-1]]
    vocabulary = list(spelling_of_bytes().values()) + ["".join(pair) for pair in merges]
    model = tokenizers.models.BPE({token: i for i, token in enumerate(vocabulary)}, merges)
    bpe = tokenizers.Tokenizer(model)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return bpe


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_equals_an_independent_implementation(reference: object, text: str) -> None:
    assert encode([text]) == [reference.encode(text).ids]  # type: ignore[attr-defined]


@pytest.mark.shared
def test_equals_an_independent_implementation_on_real_messages(reference: object, sms_file: Path) -> None:
    texts = read_sms_spam(str(sms_file), quoted=False).texts
    assert encode(texts) == [one.ids for one in reference.encode_batch(texts)]  # type: ignore[attr-defined]


@pytest.mark.shared
def test_equals_an_independent_implementation_on_long_texts(reference: object) -> None:
    text = (SHARED / "data" / "imdb_sample.csv").read_text(encoding="utf-8")[:300_000]
    assert encode([text]) == [reference.encode(text).ids]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_tokens_spell_the_text(text: str) -> None:
    bytes_of = {i: token for token, i in merge_ranks().items()}
    assert b"".join(bytes_of[i] for i in encode([text])[0]).decode() == text


def test_known_ids() -> None:
    # "Hello, world!" as in OpenAI's own examples; ids do not depend on this project.
    assert encode(["Hello, world!"]) == [[15496, 11, 995, 0]]


def test_an_empty_text_is_one_boundary_token() -> None:
    assert encode([""]) == [[PAD_ID]] == [[50256]]


def test_the_special_spelling_is_ordinary_text() -> None:
    (ids,) = encode(["so <|endoftext|> ends"])
    assert PAD_ID not in ids
    assert len(ids) > 3


def test_a_batch_is_its_texts_in_order() -> None:
    assert encode(TEXTS) == [encode([text])[0] for text in TEXTS]
    assert encode([]) == []


@pytest.mark.timeout(120)  # with tiktoken before 0.13 it takes days
@pytest.mark.parametrize(
    ("text", "n"),
    [("a" * 2_000_000, 500_000), ("🙂" * 250_000, 500_000), ("x" + " " * 2_000_000 + "x", 2_000_001)],
    ids=["letters", "emoji", "blanks before a word"],
)
def test_one_character_a_million_times(text: str, n: int) -> None:
    (ids,) = encode([text])
    assert len(ids) == n
    bytes_of = {i: token for token, i in merge_ranks().items()}
    assert b"".join(bytes_of[i] for i in ids).decode() == text


def test_needs_no_network_and_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"the network was asked for: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    tokenizer._encoding.cache_clear()  # otherwise an earlier test's encoding would answer
    assert encode(["Hello, world!"]) == [[15496, 11, 995, 0]]
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_as_long_as_their_text() -> None:
    for text in TEXTS:
        assert sum(token_bytes(encode([text])[0])) == len(text.encode())
    assert token_bytes(encode(["🙂"])[0]) == [2, 2]  # a character over several tokens
