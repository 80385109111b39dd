"""Synthetic ham and spam for the quickstart: made from phrases and a seed, nothing else.

Both sides have hard cases, so that a classifier reaches neither all nor chance: ham with offers,
links, prices and numbers; spam in a casual tone; messages that either side might send; and some
labels that are plainly wrong.
"""

import random
import re

N_MESSAGES = 1000
LABEL_NOISE = 0.04
"""Share of messages whose label is turned over."""

_WORDS = {
    "name": "Anna Ben Chloe Dev Elif Femi Grace Hugo Ines Jonas Kira Leo Maya Nils Olga Priya".split(),
    "place": "the station|the office|the gym|my place|the café|school|the library|platform 4|the market".split("|"),
    "when": "tonight|tomorrow|at 7|after work|on Friday|this weekend|in 20 min|around noon|at 8.30".split("|"),
    "food": "pasta|soup|curry|pizza|salad|dumplings|tacos|leftovers".split("|"),
    "thing": "keys|charger|umbrella|tickets|notes|passport|laptop|jacket".split("|"),
    "shop": "the bakery|the bike shop|the bookshop|the supermarket|the pharmacy".split("|"),
    "prize": "a phone|a holiday|£500 cash|a gift card|a weekend for two|free credit|a new tablet".split("|"),
    "short": "80012 81234 60077 85550 89123 70700".split(),
    "code": "WIN PRIZE YES GO CLAIM STAR".split(),
    "site": "win-now.example|prizes.example/go|bonus.example|deal4u.example|loan.example/fast".split("|"),
    "page": "maps.example/p/81|photos.example/album|news.example/story|docs.example/d/3f".split("|"),
    "hi": "hey|hi|hiya|yo|oh|ok|so|btw|lol|sorry".split("|"),
    "bye": "x|see you|love you|thanks|cheers|talk later|:)|haha|ok?|no rush".split("|"),
    "money": "£5|£12|£20|£40|10 euros|15 quid|£100".split("|"),
}

# Said by friends and by strangers alike: nobody could distinguish them.
_EITHER = """call me back on 555 0{short} {when}
{hi} is this {name}? I have your {thing}
your code is {code}{short}, {bye}
your parcel is at {shop}, they want {money}
{hi} tickets for {when}, {money} each. {bye}
reply {code} if you come {when}"""

_HAM = """{hi} are we still meeting at {place} {when}?
{hi} I left my {thing} at {place}, can you bring it {when}? {bye}
making {food} {when}, do you want some? {bye}
can you call {name} {when}, she is waiting at {place}
running late, be at {place} {when}. {bye}
{name} says the {thing} are in the car, not at {place}
did you eat? there is {food} in the fridge {bye}
I will be home {when}, the bus to {place} never came
good luck {when}! {name} and I think of you {bye}
{hi} what was the name of that {food} place near {place}?
mum asked if {name} comes {when}. {bye}
meeting moved to {when}, {place}. bring the {thing}
happy birthday {name}! cake at {place} {when}
do not forget the {thing}, we leave {when}
could you pick up {food} from {shop} {when}? {bye}"""

_HARD_HAM = """{shop} has a sale, {thing} for {money}, shall I get one?
you won the bet, I owe you {money}. {bye}
{hi} look at this {page} {bye}
free {when}? {name} has two tickets, no charge
I transferred {money} for the {food}, call me if it is not there
call me on 555 0{short} when you get to {place}
congratulations {name}! drinks are free for you {when}
special offer from me: free {food} if you bring the {thing} {when}
your parcel is at {shop}, they want {money} and a code
{name} got a cash prize at school, {money}! reply when you can"""

_SPAM = """Congratulations! You have won {prize}. Text {code} to {short} now
URGENT: your number was drawn for {prize}. Call 090{short} today
Claim {prize} at {site} before midnight. Reply STOP to opt out
FREE entry in our weekly draw for {prize}! Send {code} to {short}
You have been selected for {prize}. Visit {site} to confirm
Cash loan up to {money}00 approved. No checks. Go to {site}
Last chance: {prize} is waiting for you. Text {code} to {short}, 150p per msg
Winner! Your mobile was awarded {prize}. Claim code {code}{short}
Hot deal {when} only: {prize} for {money}. Order on {site}
Your bonus expires {when}. Log in at {site} to get {prize}
Dear customer, your account gets {prize}. Call {short} to collect"""

_HARD_SPAM = """{hi} {name} here, got {prize} from {site}, you should try {bye}
{hi} I tried to call you, ring me back on 090{short} {bye}
are you free {when}? someone near {place} wants to meet you, text {short}
{hi} is this still your number? see my pictures {site} {bye}
your {thing} order for {money} is on hold, check {site} {when}
mum my phone is broken, send {money} to this number {when} {bye}
{name} sent you a message, read it at {site}
we could not deliver to {place}, pay {money} at {site} {when}"""


def generate(seed: int) -> tuple[list[str], list[str]]:
    """Messages and labels (`ham`, `spam`), half of each before label noise, all different.

    Args:
        seed: the same seed gives the same messages.
    """
    rng = random.Random(seed)
    texts: list[str] = []
    labels: list[str] = []
    seen: set[str] = set()
    while len(texts) < N_MESSAGES:
        label = "ham" if len(texts) % 2 else "spam"
        plain, hard = (_HAM, _HARD_HAM) if label == "ham" else (_SPAM, _HARD_SPAM)
        kind = rng.choices((plain, hard, _EITHER), weights=(60, 32, 8))[0]
        text = _fill(rng.choice(kind.split("\n")), rng)
        if text not in seen:
            seen.add(text)
            texts.append(text)
            labels.append(label)
    for i in rng.sample(range(N_MESSAGES), round(LABEL_NOISE * N_MESSAGES)):
        labels[i] = "ham" if labels[i] == "spam" else "spam"
    return texts, labels


def _fill(template: str, rng: random.Random) -> str:
    text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(_WORDS[match[1]]), template)
    style = rng.random()
    if style < 0.15:
        return text.lower()
    return text[0].upper() + text[1:] if style < 0.6 else text
