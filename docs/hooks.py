"""Hooks of the documentation site: links to files of the repository, such as examples, lead to copies in the site."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = re.compile(r"\]\(\.\./((?:examples|configs|benchmarks|tests)/[\w./-]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the files of the repository that pages link to."""
    for page in list(files.documentation_pages()):
        for place in OUTSIDE.findall(page.content_string):
            if (ROOT / place).is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Makes links to these files relative to the site; a link to a file that does not exist stays, and is refused."""
    return OUTSIDE.sub(lambda link: f"]({link[1]})" if (ROOT / link[1]).is_file() else link[0], markdown)
