"""The configuration files that come with the library; their names stand for them wherever a file is taken."""

from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "configs"


def shipped_configs() -> Mapping[str, Path]:
    """The files by name, for example ``digits``."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def is_shipped(path: Path) -> bool:
    """Whether a path is the name of a shipped file; a file of the user's own comes first."""
    return path.name == str(path) and not path.is_file() and path.name in shipped_configs()


def find_config(path: Path) -> Path:
    """The file that a path or the name of a shipped file stands for."""
    return shipped_configs()[path.name] if is_shipped(path) else path


def summary(path: Path) -> str:
    """The first sentence of the comment that a configuration file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines[: _first(lines)])
    return comment.partition(". ")[0].removesuffix(".")


def _first(lines: list[str]) -> int:
    """The number of comment lines before the first setting."""
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
