"""Our tokenizer as a `tokenizer.json`, which the `tokenizers` library and transformers read."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from lit_cls.data.tokenizer import PAD_ID, merges, spelt_bytes

PAD_TOKEN = "\ufdd0<|endoftext|>"
"""How the file spells id 50256. U+FDD0 is a noncharacter, which no text has: `<|endoftext|>` in a text stays
ordinary text, and whoever has to can still name the token."""


def write_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.json`, and the vocabulary's licence beside it.

    Its ids are those of `lit_cls.data.tokenizer.encode`, but for an empty text, of which it makes none: it can
    rewrite no text of no length. It neither cuts nor pads.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pairs = merges()
    tokens = [*spelt_bytes().values(), *(left + right for left, right in pairs), PAD_TOKEN]
    assert tokens.index(PAD_TOKEN) == PAD_ID
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(PAD_TOKEN, special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    with as_file(files("lit_cls.data").joinpath("vocabulary", "NOTICE")) as notice:
        shutil.copyfile(notice, folder / "NOTICE")
