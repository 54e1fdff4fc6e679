"""The library's own warnings are told in one line, without Python's file and line."""

import warnings
from collections.abc import Callable

import pytest

from prune_env.commands.common import _show_warning
from prune_env.data import LeftOut
from prune_env.report.live import LivePage


def _no_page() -> None:
    raise OSError("Permission denied")


@pytest.mark.parametrize(
    ("warn", "told"),
    [
        (lambda: LeftOut(degenerate=2).tell("voc"), "data set 'voc': boxes were left out: 2 without width or height\n"),
        (LivePage(_no_page).tick, "the page of the run is not written any more: Permission denied\n"),
    ],
    ids=["boxes", "page"],
)
def test_a_warning_is_told_in_one_line(
    warn: Callable[[], None], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", _show_warning)
        warn()
    assert capsys.readouterr().err == told
