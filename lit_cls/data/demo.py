"""Synthetic ham and spam for the quickstart: made from phrases and a seed, nothing else.

Both sides have hard cases, so that a classifier reaches neither all nor chance: ham with offers, links, prices and
numbers; spam in a casual tone; messages that either side might send; and some labels that are plainly wrong.
"""

import random
import re
from importlib.resources import files

import yaml

N_MESSAGES = 1000
LABEL_NOISE = 0.04
"""Share of messages whose label is turned over."""


def generate(seed: int) -> tuple[list[str], list[str]]:
    """Messages, all different, and their labels (`ham`, `spam`, half of each before label noise), fixed by the seed."""
    phrases = yaml.safe_load(files("lit_cls.data").joinpath("demo_phrases.yaml").read_text(encoding="utf-8"))
    words = {place: listed.split("|") for place, listed in phrases["words"].items()}
    rng = random.Random(seed)
    labelled: dict[str, str] = {}
    while len(labelled) < N_MESSAGES:
        label = "ham" if len(labelled) % 2 else "spam"
        kind = rng.choices((label, f"hard_{label}", "either"), weights=(60, 32, 8))[0]
        labelled.setdefault(_fill(rng.choice(phrases[kind].split("\n")), words, rng), label)
    labels = list(labelled.values())
    for i in rng.sample(range(N_MESSAGES), round(LABEL_NOISE * N_MESSAGES)):
        labels[i] = "ham" if labels[i] == "spam" else "spam"
    return list(labelled), labels


def _fill(template: str, words: dict[str, list[str]], rng: random.Random) -> str:
    text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(words[match[1]]), template)
    style = rng.random()
    if style < 0.15:
        return text.lower()
    return text[0].upper() + text[1:] if style < 0.6 else text
