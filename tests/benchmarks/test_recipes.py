"""One plan by a grid of recipes."""

from pathlib import Path

import pytest
from pruned import pruned_run

from benchmarks.recipes import Recipe, main, recipes_of
from prune_env.runs.training_folder import TrainingFolder


def test_settings_with_commas_make_a_grid_and_the_others_are_fixed() -> None:
    rate, decay = "finetune.learning_rate", "finetune.weight_decay"
    found = recipes_of([f"{rate}=0.03,0.1", "finetune.epochs=2", f"{decay}=1e-3,2e-3"])
    assert len(found) == 4
    assert found[2] == Recipe(
        "recipe-epochs=2-learning_rate=0.1-weight_decay=1e-3", ("finetune.epochs=2", f"{rate}=0.1", f"{decay}=1e-3")
    )
    assert recipes_of([]) == [Recipe("recipe", ())]


@pytest.mark.slow
def test_each_recipe_is_trained_once_and_asks_the_teacher_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pruned_run(tmp_path / "run")
    grid = ["finetune.epochs=1", "finetune.learning_rate=0.01,0.02"]
    for _ in range(2):
        main([str(run.root), *grid])
    said = capsys.readouterr().out
    assert said.count(": epoch 1") == 2
    assert said.count("even (chosen on)") == 2
    assert len(list(run.teacher.iterdir())) == 1
    folders = [TrainingFolder(run.root / f"recipe-epochs=1-learning_rate={rate}") for rate in ("0.01", "0.02")]
    assert folders[0].weights.read_bytes() != folders[1].weights.read_bytes()
