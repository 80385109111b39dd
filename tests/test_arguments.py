"""Which words are a series' own, which its fits', and which nobody's."""

import re

import pytest

from lit_cls.commands.parser import CommandParser
from lit_cls.commands.series_options import SeriesParser, whole_numbers
from lit_cls.errors import UserError


@pytest.fixture
def parser() -> SeriesParser:
    """With an option, a switch, a fixed option, and a fixed group of which two options are free."""
    fixed = {"--run_name": "runs have names", "--data": "a run is what it is", "--trainer.max_time": "give --time"}
    made = SeriesParser("series", "Runs many.", fixed, ("--data.path", "--data.num_workers"))
    made.add_argument("--out", default="somewhere")
    made.add_argument("--again", action="store_true")
    return made


def refused(parser: SeriesParser, *words: str) -> str:
    with pytest.raises(UserError) as told:
        parser.split(words)
    return str(told.value)


# Words that are handed on.


def test_without_words_there_are_the_defaults(parser: SeriesParser) -> None:
    own, others = parser.split([])
    assert (vars(own), others) == ({"out": "somewhere", "again": False}, [])


def test_other_options_keep_their_order_and_form(parser: SeriesParser) -> None:
    words = [
        "--trainer.max_epochs",
        "1",
        "--out",
        "here",
        "--seed=3",
        "--keep",
        "last",
        "--again",
        "--trainer.devices=1",
    ]
    own, others = parser.split(words)
    assert vars(own) == {"out": "here", "again": True}
    assert others == ["--trainer.max_epochs", "1", "--seed=3", "--keep", "last", "--trainer.devices=1"]


def test_an_option_given_twice_is_handed_on_twice(parser: SeriesParser) -> None:
    words = ["--model.size", "gpt2-nano", "--model.size", "gpt2-small"]
    assert parser.split(words)[1] == words


def test_options_are_not_abbreviated(parser: SeriesParser) -> None:
    own, others = parser.split(["--ou", "here", "--aga"])
    assert (own.out, own.again, others) == ("somewhere", False, ["--ou", "here", "--aga"])


@pytest.mark.parametrize(
    "words",
    [
        ["--data.path", "texts.csv"],
        ["--data.path=texts.csv"],
        ["--data.num_workers", "2"],
        ["--data.path=a=b.csv"],
        ["--trainer.max_epochs", "1"],  # of the same group as a fixed option
        ["--trainer.max_times", "1"],  # begins like one
        ["--database", "x"],  # begins like a fixed group
        ["--data.path", "run_name"],
    ],
)
def test_free_options_are_handed_on(parser: SeriesParser, words: list[str]) -> None:
    assert parser.split(words)[1] == words


# Words that are refused.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--run_name", "x"], "--run_name is no option of lit_cls series: runs have names"),
        (["--run_name=x"], "--run_name is no option of lit_cls series: runs have names"),
        (["--data.causal", "false"], "--data.causal is no option of lit_cls series: a run is what it is"),
        (["--data.split=ch06"], "--data.split is no option of lit_cls series: a run is what it is"),
        (["--data.path.name", "x"], "--data.path.name is no option of lit_cls series: a run is what it is"),
        (["--data", "data.yaml"], "--data is no option of lit_cls series: a run is what it is"),
        (["--trainer.max_time", "1"], "--trainer.max_time is no option of lit_cls series: give --time"),
        (["--seed", "1", "--out", "x", "--data.path", "x", "--run_name", "x"], "--run_name is no option"),
        (["--print_config"], "--print_config is an option of lit_cls fit: a series has many configurations"),
        (["--print_config=skip_null"], "--print_config is an option of lit_cls fit"),
    ],
)
def test_what_the_series_sets_itself_is_refused_with_the_way_out(
    parser: SeriesParser, words: list[str], told: str
) -> None:
    assert refused(parser, *words).startswith(told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out"], "argument --out: expected one argument"),
        (["--again=yes"], "argument --again: ignored explicit argument 'yes'"),
    ],
)
def test_a_mistake_in_an_own_option_is_the_users(parser: SeriesParser, words: list[str], told: str) -> None:
    assert refused(parser, *words) == f"{told}; lit_cls series --help lists the options"


def test_help_says_where_the_other_options_are(parser: SeriesParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.split(["--run_name", "x", "--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("usage: lit_cls series ")
    assert "lit_cls fit --help lists them" in told


# Numbers.


@pytest.mark.parametrize(
    ("given", "numbers"), [("123,1,2", [123, 1, 2]), ("0", [0]), (" 3 , 20", [3, 20]), ("4294967295", [4294967295])]
)
def test_whole_numbers_in_the_order_given(given: str, numbers: list[int]) -> None:
    assert whole_numbers("--seeds", given) == numbers


@pytest.mark.parametrize("given", ["1,1", "", "a", "1,,2", "-1", "1,2,", "1.5", "1 2", "3,2,3", "1-3", "²"])
def test_what_are_no_different_whole_numbers(given: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--seeds {given}: different whole numbers separated by commas")):
        whole_numbers("--seeds", given)


@pytest.mark.parametrize("words", [["-c", "x.yaml"], ["-cx.yaml"], ["--trainer", "t.yaml"], ["--trainer={a: 1}"]])
def test_no_short_form_and_no_whole_group_goes_round_a_fixed_option(words: list[str]) -> None:
    fixed = {"--config": "the way out", "--trainer.default_root_dir": "give --out"}
    with pytest.raises(UserError, match="the way out|give its options one by one, without --trainer.default_root_dir"):
        SeriesParser("reproduce", "", fixed).split(words)


@pytest.mark.parametrize("given", ["1,01", "7,2,0007"])
def test_the_same_number_spelled_twice(given: str) -> None:
    with pytest.raises(UserError, match="different whole numbers"):
        whole_numbers("--seeds", given)


def test_a_mistake_names_the_command_that_lists_its_options() -> None:
    parser = CommandParser("data check", "Looks at data.")
    with pytest.raises(
        UserError, match=r"unrecognized arguments: --nothing; lit_cls data check --help lists the options"
    ):
        parser.parse_args(["--nothing"])
