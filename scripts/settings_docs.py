"""Writes docs/configuration.md from the settings themselves: `python -m prune_env.commands.settings_docs`."""

from pathlib import Path

from prune_env.config import describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEADER = """# Settings

All keys of a configuration file. The command line takes each of them as `key.path=value`.
Text values may contain `${VAR}` and `${VAR:-default}`. `python -m prune_env.commands.settings_docs` writes this page.

| key | type | default | meaning |
|---|---|---|---|
"""


def render_settings() -> str:
    """The page as Markdown."""
    rows = (
        f"| `{key.key}` | {_cell(key.type)} | `{_cell(key.default)}` | {_cell(key.description)} |" for key in describe()
    )
    return HEADER + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(render_settings(), encoding="utf-8")
