"""The examples run as they stand: three scripts, and the code cells of the notebook."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Examples import each other; the working directory shows whether they leave files."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)


def printed(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_own_model_ends_with_a_smaller_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = printed("own_model.py", capsys, monkeypatch)
    assert "where the dense network has" in out
    assert "fine-tuned" in out
    assert "Conv2d(1, 16" in out
    assert not list(tmp_path.iterdir())


def test_the_callback_stops_the_search(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed("stop_early.py", capsys, monkeypatch).splitlines()
    found = [int(line.split()[1].rstrip(":")) for line in lines if line.startswith("episode ")]
    (stopped,) = (int(line.split()[2]) for line in lines if line.startswith("stopped after"))
    # 60 evaluations, of which 3 are probes; ten episodes after the last gain the callback stops.
    assert stopped == min(57, found[-1] + 11)


def test_what_is_shipped_computes_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = printed("ship.py", capsys, monkeypatch, str(tmp_path))
    differences = [float(line.split()[-1]) for line in out.splitlines() if "largest difference" in line]
    assert len(differences) == 2
    assert max(differences) < 1e-4
    assert {path.name for path in tmp_path.iterdir()} == {"pruned", "report.html", "small.pt2"}


def test_the_notebook_s_cells_run_in_order_and_show_their_results() -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    names: dict[str, Any] = {"__name__": "__main__"}
    pages = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            value = shown_by("".join(cell["source"]), names)
            pages += [value._repr_html_()] if hasattr(value, "_repr_html_") else []
    assert "of its MACs" in pages[0]
    assert pages[-1].startswith("<iframe")


def test_the_longer_way_of_the_docs_stops_its_search() -> None:
    from own_model import my_data, my_network, train_it

    page = (EXAMPLES.parent / "docs" / "python.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "train_agent(" in part)
    model, (train, test) = my_network(), my_data()
    train_it(model, train, epochs=4)
    names: dict[str, Any] = {"train": train, "test": test, "model": model.eval()}
    exec(block.replace('"configs/', f'"{EXAMPLES.parent}/configs/'), names)
    assert names["result"].episodes < 100
    assert names["small"](next(iter(test))[0]).shape[1] == 10


def shown_by(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell; gives the value of its last expression, which a notebook would show."""
    cell = ast.parse(source)
    last = cell.body.pop() if isinstance(cell.body[-1], ast.Expr) else None
    exec(compile(cell, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
