"""The heads of a classifier: which tensors are scores, and what is refused because nobody can tell."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.googlenet import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from prune_env.common.errors import ModelError
from prune_env.tasks.heads import heads_of

SCORES, FIRST, SECOND = (torch.full((3, 5), float(number)) for number in range(3))
FEATURES, MAPS = torch.zeros(3, 64), torch.zeros(3, 8, 4, 4)

Pair = namedtuple("Pair", ["one", "other"])


@dataclass
class Output:
    """An output as of Hugging Face's classifiers."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...]


TAKEN: dict[str, tuple[Any, list[Tensor]]] = {
    "a tensor": (SCORES, [SCORES]),
    "scores and None": ((SCORES, None), [SCORES]),
    "None and scores": ((None, SCORES), [SCORES]),
    "a tuple of heads": ((SCORES, FIRST, SECOND), [SCORES, FIRST, SECOND]),
    "a list of heads": ([SCORES, FIRST], [SCORES, FIRST]),
    "scores and maps": ((SCORES, MAPS), [SCORES]),
    "scores and a loss": ((torch.tensor(1.0), SCORES), [SCORES]),
    "GoogLeNet in training": (GoogLeNetOutputs(SCORES, SECOND, FIRST), [SCORES, SECOND, FIRST]),
    "GoogLeNet without heads": (GoogLeNetOutputs(SCORES, None, None), [SCORES]),
    "Inception in training": (InceptionOutputs(SCORES, FIRST), [SCORES, FIRST]),
    "a dict with out": (OrderedDict(aux=FIRST, out=SCORES), [SCORES, FIRST]),
    "a dict with features": ({"features": FEATURES, "logits": SCORES}, [SCORES]),
    "a dict with probabilities": ({"logits": SCORES, "probabilities": FIRST}, [SCORES]),
    "a dict of one other name": ({"prediction": SCORES, "maps": MAPS}, [SCORES]),
    "a dict of one other name and an auxiliary head": ({"aux": FIRST, "main": SCORES}, [SCORES, FIRST]),
    "an auxiliary head of other classes": ({"logits": SCORES, "aux": FEATURES}, [SCORES]),
    "a dataclass": (Output(None, SCORES, (FEATURES,)), [SCORES]),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_the_main_head_comes_first_and_what_is_no_head_is_ignored(kind: str) -> None:
    outputs, expected = TAKEN[kind]
    found = heads_of(outputs, 3, 5)
    assert [id(head) for head in found] == [id(head) for head in expected]


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (None, "a NoneType"),
    "an empty tuple": ((), r"a tuple \(\)"),
    "maps": (MAPS, r"of shape \[3, 8, 4, 4\]"),
    "scores of other images": ((SCORES[:2],), r"a tuple \(of shape \[2, 5\]\)"),
    "scores and features": ((SCORES, FEATURES), r"a tuple \(of shape \[3, 5\], of shape \[3, 64\]\)"),
    "features and scores": ([FEATURES, SCORES], r"a list \(of shape \[3, 64\], of shape \[3, 5\]\)"),
    "two heads of unknown names": ({"left": SCORES, "right": FIRST}, r"a dict \(left: .*, right: .*\)"),
    "a named tuple of unknown names": (Pair(SCORES, FIRST), r"a Pair \(one: .*, other: .*\)"),
    "an auxiliary head alone": ({"aux": SCORES}, r"a dict \(aux: of shape \[3, 5\]\)"),
    "too few scores": ({"logits": SCORES[:, :4]}, r"a dict \(logits: of shape \[3, 4\]\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_output_without_a_clear_main_head_is_refused_with_what_to_do(kind: str) -> None:
    outputs, given = REFUSED[kind]
    needed = rf"^The network's output is {given}; a tensor of shape \[3, 5\] is needed for 3 images of 5 classes\. Give"
    with pytest.raises(ModelError, match=needed) as refusal:
        heads_of(outputs, 3, 5)
    assert ("put the scores under 'logits' in a dict" in str(refusal.value)) == (not isinstance(outputs, Tensor | None))


def test_where_the_classes_are_unknown_any_number_of_scores_is_taken() -> None:
    assert heads_of(SCORES[:, :1], 3)[0].shape == (3, 1)
    with pytest.raises(ModelError, match=r"a tensor of shape \[3, classes\] is needed for 3 images\. Give"):
        heads_of(MAPS, 3)


def test_one_score_for_two_classes_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"of 2 classes\. .*scores from one, z, are torch\.cat\(\[torch\.zeros"):
        heads_of(torch.zeros(3, 1), 3, 2)
