"""What tests of the commands share."""

import re
import sys
from collections.abc import Callable

import pytest

from scripts.cli import main


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `prune-env`, which must end with code 2; gives what it said, on one line and without frames."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["prune-env", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert not said.out
        assert "Traceback" not in said.err
        return re.sub(r"[\s│]+", " ", said.err)

    return run
