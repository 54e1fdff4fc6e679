"""Forward hooks on modules of a network, within a context."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

Before = Callable[[str, nn.Module, tuple[Any, ...]], Any]
"""Called with a module's name, the module and its inputs; a return value other than None replaces the inputs.

Inputs given by keyword follow those given by position."""

After = Callable[[str, nn.Module, tuple[Any, ...], Any], Any]
"""Called with a module's name, the module, its inputs and output; a result other than None replaces the output."""


@contextmanager
def watching(
    model: nn.Module, names: Iterable[str], before: Before | None = None, after: After | None = None
) -> Iterator[None]:
    """Calls hooks at every call of some modules; removes the hooks at the end of the block, also after an error.

    Args:
        model: The network.
        names: Dotted names of the modules.
        before: Called before each call.
        after: Called after each call.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with watching(model, ["0"], after=lambda name, module, inputs, output: print(name, tuple(output.shape))):
        ...     _ = model(torch.ones(1, 2))
        0 (1, 3)
        >>> _ = model(torch.ones(1, 2))
    """
    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            # A handle is a context manager that removes its hook.
            if before is not None:
                hook = partial(_call_before, before, name)
                hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
            if after is not None:
                hooks.enter_context(module.register_forward_hook(partial(_call_after, after, name), with_kwargs=True))
        yield


def _call_before(before: Before, name: str, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    replaced = before(name, module, (*args, *keywords.values()))
    if replaced is None:
        return None
    replaced = replaced if isinstance(replaced, tuple) else (replaced,)
    return replaced[: len(args)], dict(zip(keywords, replaced[len(args) :], strict=True))


def _call_after(
    after: After, name: str, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any
) -> Any:
    return after(name, module, (*args, *keywords.values()), output)
