"""A report names no folder, user or machine, wherever a path stands in the settings or the command."""

import shlex
import time

import pytest
import yaml

from prune_env.report.sharing import command_without_places, text_without_places, without_places

PATHS = [
    ("/home/alice/x", ".../x"),
    ("/home/alice/my own, [old]/x", ".../x"),
    ("/home/o'alice/x", ".../x"),
    ("~/alice/x", ".../x"),
    ("~alice/x", ".../x"),
    ("~alice", "..."),
    ("optuna:///home/alice/s.db", "optuna://.../s.db"),
    ("optuna://s.db", "optuna://s.db"),
    ("file:///home/alice/x", "file://.../x"),
    ("mysql://alice:word@alicehost/x", "mysql://.../x"),
    ("ray://alicehost:10001", "ray://..."),
    ("--root=/home/alice/x", "--root=.../x"),
    ("-I/home/alice/x", "-I.../x"),
    ("[/home/alice/x]", "[.../x]"),
    ("[/home/alice/x, ../alice/y]", "[.../x, .../y]"),
    ("{weights: /home/alice/x, seed: 3}", "{weights: .../x, seed: 3}"),
    ('{"weights":"/home/alice/x","seed":3}', '{"weights":".../x","seed":3}'),
    ("'/home/alice/my own/x'", "'.../x'"),
    ('"/home/alice/x"', '".../x"'),
    (r"C:\Users\alice\x", ".../x"),
    (r"root=C:\Users\alice\x", "root=.../x"),
    (r"\\alicehost\share\x", ".../x"),
    (r"see \\alicehost\share\x", "see .../x"),
    ("../../home/alice/x", ".../x"),
    ("a/../../home/alice/x", "a/.../x"),
    (r"..\..\alice\x", ".../x"),
    ("measured in /home/alice/notes.txt", "measured in .../notes.txt"),
]


@pytest.mark.parametrize(("given", "shown"), PATHS)
def test_a_path_is_cut_to_its_last_part_wherever_it_stands(given: str, shown: str) -> None:
    assert text_without_places(given) == shown
    settings = {"model": {"name": "toy", given: 1}, "data": {"path": given, "list": [given]}}
    found = yaml.safe_load(without_places("# python 3.11\n" + yaml.safe_dump(settings)))
    assert found == {"model": {"name": "toy", shown: 1}, "data": {"path": shown, "list": [shown]}}
    command = command_without_places(shlex.join(["prune-env", "train", given, f"data.path={given}"]))
    assert shlex.split(command)[2:] == [shown, f"data.path={shown}"]
    assert "alice" not in command_without_places(f"prune_env.prune(model, {given!r})")


@pytest.mark.parametrize(
    "text",
    [
        "runs/digits/weights.pt",
        "./configs/x.yaml",
        "mean / std",
        "3x3/1x1 and/or 50%/epoch",
        "package.module:callable",
        "a layer that two branches share ...",
        "lr=~0.5",
        "10.1007/s10462-023-10566-5",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert text_without_places(text) == text


@pytest.mark.parametrize("part", ["/", "../", "a:", "~", "\\", "a/../", "'", "x://", "-"])
def test_the_time_grows_with_the_text(part: str) -> None:
    begun = time.process_time()
    text_without_places("x " + part * 50_000)
    assert time.process_time() - begun < 1
