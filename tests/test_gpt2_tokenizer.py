"""The packaged vocabulary is OpenAI's, and encoding is GPT-2's, token by token."""

import hashlib
import json
import socket
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import SHARED
from tokenizers import Tokenizer

from lit_cls.data.sources import read_sms_spam
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.gpt2 import GPT2Tokenizer, merge_ranks
from lit_cls.errors import UserError

TOKENIZER = tokenizer_for("gpt2")
PAD_ID = TOKENIZER.pad_id
encode = TOKENIZER.encode
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
    assert GPT2Tokenizer().encode(["Hello, world!"]) == [[15496, 11, 995, 0]]
    assert list(tmp_path.iterdir()) == []


def test_spans_are_the_characters_of_each_token() -> None:
    bytes_of = {i: token for token, i in merge_ranks().items()}
    for text in TEXTS:
        (ids,), spans = encode([text]), TOKENIZER.spans(text)
        assert len(spans) == len(ids)
        assert [start for start, _ in spans] == sorted(start for start, _ in spans)
        assert (spans[0][0], spans[-1][1]) == (0, len(text))
        for i, (start, end) in zip(ids, spans, strict=True):
            assert bytes_of[i] in text[start:end].encode()
    assert TOKENIZER.spans("é🙂.") == [(0, 1), (1, 2), (1, 2), (2, 3)]  # a character over several tokens
    assert TOKENIZER.spans("\ud800 a") == [(0, 1), (1, 3)]
    assert TOKENIZER.spans("") == [(0, 0)]


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="there is no tokenizer 'gpt9': the tokenizers are gpt2"):
        tokenizer_for("gpt9")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Our tokenizer, read by another library."""
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.write(folder)
    assert "Modified MIT License" in (folder / "NOTICE").read_text(encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_written_file_gives_the_same_tokens(written: Tokenizer) -> None:
    assert [written.encode(text).ids for text in TEXTS] == encode(TEXTS)
    assert written.get_vocab_size() == PAD_ID + 1


def test_the_written_file_gives_the_same_tokens_around_every_character(written: Tokenizer) -> None:
    """Each library has its own idea of what a letter, a digit and white space are."""
    pad = {ord(TOKENIZER.pad_token[0])}  # alone it is ordinary too, but no text has it
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x3000 or c % 97 == 0)]
    texts = [f"a{c}{c} {c}1{c}" for c in characters if ord(c) not in pad]
    assert [found.ids for found in written.encode_batch(texts)] == encode(texts)


def test_the_pad_token_has_a_spelling_that_no_text_has(written: Tokenizer) -> None:
    assert written.encode(TOKENIZER.pad_token).ids == [PAD_ID]
    assert PAD_ID not in written.encode("<|endoftext|>").ids
    assert written.encode("").ids == []
    assert written.decode(written.encode("naïve 文字 🙂").ids) == "naïve 文字 🙂"
