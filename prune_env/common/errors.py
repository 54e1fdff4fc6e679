"""Errors for the user. Each message says what is wrong, where, what was given, what is allowed and what to do."""

import difflib
from collections.abc import Iterable

from prune_env.common.text import one_screen


class UserError(ValueError):
    """A mistake in the user's input. The command line prints only the message and exits with code 2.

    The message fits one screen, and control characters in names are shown as such: both may come from a file that
    somebody else made.
    """

    def __str__(self) -> str:
        return one_screen(super().__str__())


class ConfigError(UserError):
    """A setting that is unknown, of the wrong type or out of range."""


class DataError(UserError):
    """A data set that is missing, damaged or too small for the settings."""


class LibraryWarning(UserWarning):
    """The base of the library's warnings; the command line prints the message alone, as one line."""


class DataWarning(LibraryWarning):
    """Something in a data set that was left out or repaired."""


class CacheWarning(LibraryWarning):
    """A damaged file of the user's cache that is ignored."""


class PageWarning(LibraryWarning):
    """The page of a run that is not written, though the run goes on."""


class WeightsError(UserError):
    """A weights or policy file that is missing, damaged or made for another network."""


class ModelError(UserError):
    """A network that cannot be built, traced or pruned."""


class BudgetError(UserError):
    """A budget that no plan of this network can meet."""


class PlanError(UserError):
    """A plan file that is missing, damaged, hostile or of an unknown version."""


class PlanMismatchError(PlanError):
    """A plan made for another network; names the first module that differs."""


class DoubtfulNetworkError(UserError):
    """A dense network whose quality is near chance, or that does not know the images that it is given."""


class DoubtfulNetworkWarning(LibraryWarning):
    """The reasons of a `DoubtfulNetworkError`, where the user goes on all the same."""


class EvaluationError(UserError):
    """A quality, loss or reward that is not a finite number."""


class ExportError(UserError):
    """A network that cannot be exported, or whose exported file computes different outputs."""


class RunError(UserError):
    """A run directory that exists already, is missing, or lacks a file."""


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, cut after 160 characters; the error's type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most similar to a name; None if none is similar. Capital letters do not count."""
    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:100].lower(), lowered, n=1, cutoff=0.5)
    return lowered[near[0]] if near else None


def suggest(name: str, known: Iterable[str]) -> str:
    """Offers the nearest known name, if one is similar, and lists the known names (at most 40).

    Args:
        name: The name that the user wrote.
        known: The names that exist.

    Returns:
        For example ``did you mean 'resnet56'? (known: resnet20, resnet56)``.
    """
    names = sorted(known)
    near = nearest(name, names)
    listing = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return f"did you mean {near!r}? (known: {listing})" if near else f"known: {listing or 'none'}"
