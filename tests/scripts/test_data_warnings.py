"""What was left out of the data is told in one line, without Python's file and line."""

import warnings

import pytest

from prune_env.commands.common import _show_warning
from prune_env.common.errors import DataWarning
from prune_env.data import LeftOut


def test_boxes_that_were_left_out_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", _show_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        monkeypatch.setattr(warnings, "showwarning", _show_warning)
        LeftOut(degenerate=2).tell("voc")
    assert capsys.readouterr().err == "data set 'voc': boxes were left out: 2 without width or height\n"
