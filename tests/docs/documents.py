"""Reads the commands out of the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its language, its title (empty for none) and its text."""

    page: str
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = re.finditer(r"^```(\w+)(?: title=\"([^\"\n]*)\")?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(page.name, match[1], match[2] or "", match[3]) for match in found]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, with its variables filled in and without comments."""
    variables: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        filled = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), line)
        words = shlex.split(filled, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words:
            yield words


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The words of each `prune-env` command within the text of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"`(prune-env [^`]*)`", text):
        yield shlex.split(command)
