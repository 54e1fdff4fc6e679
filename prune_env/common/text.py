"""Text that somebody else wrote, made fit to print: control characters shown as such, lengths bounded."""

import re

MOST = 200
"""Characters of a user's text that a message repeats [our choice]."""

ROWS, COLUMNS = 24, 80
"""The size of a small terminal, which a whole message must fit."""

# Control characters but line end and tab; the ends of lines of Unicode; marks that turn the direction of the text
# around them; halves of characters, which no encoding can write.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# A quotation begins after a space or a bracket and ends before one; an apostrophe stands within a word.
_QUOTATION = rf"(?:^|(?<=[\s(\[{{:=,]))(?P<mark>['\"])(?:(?!(?P=mark))[^\n]){{{MOST - 1},}}(?P=mark)(?=[\s)\]}}:;,.]|$)"
_LONG = re.compile(rf"{_QUOTATION}|\S{{{MOST + 1},}}")


def printable(text: str) -> str:
    r"""Shows control characters as escapes; line ends and tabs stay.

    Names in plans, configurations and networks may come from anybody. Their control characters must not move the
    cursor, change colours or turn the direction of the text beside them.

    Example:
        >>> printable("conv\x1b[31m")
        'conv\\x1b[31m'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shorten(text: str, most: int = 120) -> str:
    """Puts text on one line of at most ``most`` characters, because text from a file may have any length."""
    line = " ".join(text[: 2 * most].split())
    return line if len(line) <= most and len(text) <= 2 * most else line[: most - 3] + "..."


def quoted(value: object, most: int = MOST) -> str:
    """Quotes a value that a user or a file gave, cut after ``most`` characters.

    Example:
        >>> quoted("resnet")
        "'resnet'"
        >>> quoted("a" * 1000, most=10)
        "'aaaaaa..."
    """
    # Cut before quoting: the text may have any length.
    return shorten(repr(value[: 2 * most + 1] if isinstance(value, str) else value), most)


def one_screen(text: str) -> str:
    """Cuts a message to one small terminal: quoted and unbroken text after 200 characters, the whole after 24 rows.

    Example:
        >>> len(one_screen("x" * 1000))
        200
    """
    lines = [_LONG.sub(_without_middle, line) for line in printable(text[: 50 * ROWS * COLUMNS]).split("\n")]
    rows = [max(1, -(-len(line) // COLUMNS)) for line in lines]
    if sum(rows) <= ROWS:
        return "\n".join(lines)
    shown, left = [], ROWS - 1
    for line, height in zip(lines, rows, strict=True):
        shown.append(line[: left * COLUMNS])
        left -= height
        if left <= 0:
            break
    return "\n".join([*shown, "..."])


def _without_middle(match: re.Match[str]) -> str:
    """The ends of a long run: a path's end names its file."""
    half = (MOST - 3) // 2
    return f"{match[0][: MOST - 3 - half]}...{match[0][-half:]}"
