"""Text that somebody else wrote: control characters are shown as such, and a message fits one screen."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_env.common.errors import PlanError, UserError, suggest
from prune_env.common.text import COLUMNS, MOST, ROWS, one_screen, printable, quoted


def rows(text: str) -> int:
    return sum(max(1, -(-len(line) // COLUMNS)) for line in text.split("\n"))


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("over\rwritten", r"over\rwritten"),
        ("back\x08\x7f", r"back\x08\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        ("\0", r"\x00"),
    ],
)
def test_control_characters_are_shown_as_such(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


@pytest.mark.parametrize(
    "name",
    ["größer", "层1", "\u0645\u06cc\u200c\u062e\u0648\u0627", "👩\u200d🔬", "two\nlines\tand a tab", "$x_1$ [b]"],
)
def test_names_in_any_language_stay(name: str) -> None:
    assert printable(name) == name


@given(st.text())
def test_nothing_that_is_printed_moves_the_cursor_and_everything_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in shown if letter not in "\n\t")
    shown.encode()


@given(st.text(max_size=30), st.integers(0, 400), st.sampled_from(["", " ", "\n", "\x1b", "words of "]))
def test_a_message_fits_one_screen_and_repeats_no_long_run(text: str, times: int, between: str) -> None:
    message = str(UserError((text + between) * times))
    assert rows(message) <= ROWS
    assert max((len(word) for word in message.split()), default=0) <= MOST


def test_a_message_that_fits_is_not_changed() -> None:
    message = "\n".join(["a line of sixty characters, which is an ordinary message..."] * ROWS)
    assert str(PlanError(message)) == one_screen(message) == message


def test_the_end_of_a_long_path_is_shown() -> None:
    shown = one_screen(f"there is no plan at /{'folder/' * 100}plan.json")
    assert shown.endswith("/plan.json")
    assert len(shown) < 240


def test_a_gigabyte_in_a_message_costs_no_time() -> None:
    assert rows(str(UserError("a " * 50_000_000))) <= ROWS


@pytest.mark.parametrize("value", ["x" * 10_000, "word " * 10_000, ["x"] * 10_000, {"a": "b" * 10_000}, 10**4000])
def test_a_value_is_quoted_in_at_most_200_characters(value: object) -> None:
    assert len(quoted(value)) == MOST


def test_a_suggestion_for_an_endless_name_is_found_at_once() -> None:
    assert suggest("resnet50" * 100_000, ["resnet50", "vgg"]).endswith("known: resnet50, vgg")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quoted_text_of_many_words_is_cut_too(quote: str) -> None:
    shown = one_screen(f"criterion.name: {quote}{'word ' * 400}{quote} given; allowed are l1, taylor")
    assert shown.startswith(f"criterion.name: {quote}word word")
    assert shown.endswith(f"word {quote} given; allowed are l1, taylor")
    assert len(shown) < MOST + 70


def test_words_between_two_quotations_or_apostrophes_stay() -> None:
    words = "one of many words that an author of this library wrote " * 5
    for message in (f"'a' and 'b/' {words} 'c' or 'd'", f"the network's output {words} under 'logits'"):
        assert one_screen(message) == message
