"""The heads of a classifier: which tensors of its output are scores, and which of them counts."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

from torch import Tensor

from prune_env.common.errors import ModelError

MAIN = ("logits", "out", "scores")
"""Names of the main head in a mapping, named tuple or dataclass, the likeliest first."""

AUXILIARY = "aux"
"""Part of the names of auxiliary heads, as in torchvision's ``aux_logits``."""


def heads_of(outputs: Any, count: int, classes: int | None = None) -> tuple[Tensor, ...]:
    """Returns the scores of all heads, the main head first.

    A head is a tensor [count, classes]. An output that is one tensor is the main head. In a tuple or list, the first
    head is the main head, and heads after it are auxiliary. In a mapping, named tuple or dataclass, the main head is
    the entry of a name in `MAIN`, or the only head; heads with `AUXILIARY` in their name are auxiliary. Everything else
    is ignored: None, feature maps, a loss.

    Args:
        outputs: The network's output for a batch, in either mode.
        count: Number of images in the batch.
        classes: Number of classes in the data, if known. More scores than classes are allowed.

    Raises:
        ModelError: If there is no main head or more than one candidate, or the main head has too few scores.
    """
    entries = _entries(outputs)
    heads = {name: value for name, value in entries.items() if _is_head(value, count)}
    main: str | int | None = next((name for name in MAIN if name in heads), None)
    if main is None:
        candidates = [name for name in heads if AUXILIARY not in str(name)]
        # Features [count, size] look like scores: several heads must have an order and one shape.
        alike = len({heads[name].shape for name in candidates}) == 1 and not isinstance(candidates[0], str)
        if len(candidates) != 1 and not alike:
            _refuse(outputs, entries, count, classes)
        main = candidates[0]
    scores = heads.pop(main)
    if classes is not None and scores.shape[1] < classes:
        _refuse(outputs, entries, count, classes)
    auxiliary = (head for name, head in heads.items() if isinstance(name, int) or AUXILIARY in name)
    return scores, *(head for head in auxiliary if head.shape == scores.shape)


def _entries(outputs: Any) -> dict[str | int, Any]:
    """The parts of an output by name, or by position where there are no names."""
    if isinstance(outputs, Mapping):
        return {str(name): value for name, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_asdict"):
        return dict(outputs._asdict())
    if isinstance(outputs, (list, tuple)):
        return dict(enumerate(outputs))
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return {0: outputs}


def _is_head(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and len(value) == count


def _refuse(outputs: Any, entries: Mapping[str | int, Any], count: int, classes: int | None) -> NoReturn:
    """Raises the error that names the given and the required output."""
    alone = entries.get(0) is outputs
    parts = [f"{'' if isinstance(name, int) else f'{name}: '}{_described(value)}" for name, value in entries.items()]
    given = parts[0] if alone else f"a {type(outputs).__name__} ({', '.join(parts)})"
    need = f"a tensor of shape [{count}, {classes or 'classes'}] is needed for {count} image{'s' * (count != 1)}"
    place = "" if alone else "; where it gives more than scores, put the scores under 'logits' in a dict"
    single = classes == 2 and any(_is_head(value, count) and value.shape[1] == 1 for value in entries.values())
    hint = ": two scores from one, z, are torch.cat([torch.zeros_like(z), z], dim=1)" if single else ""
    raise ModelError(
        f"The network's output is {given}; {need}{f' of {classes} classes' if classes else ''}. "
        f"Give a network with one output per class{hint}{place}."
    )


def _described(value: Any) -> str:
    return f"of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
