"""RunConfig: every setting of a run, typed, read from YAML, overrides and environment variables."""

import json
import os
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, create_model

from prune_env.common.errors import ConfigError
from prune_env.config.agent import AgentSection
from prune_env.config.granularity import GRANULARITIES, GranularitySettings
from prune_env.config.load import override_path, read_yaml, with_environment, with_overrides, without_references
from prune_env.config.older import path_with_new_names, with_new_names, with_new_section, without_gone, without_inert
from prune_env.config.problems import OVERRIDES, describe_problems, is_overridden
from prune_env.config.sections import (
    BudgetSection,
    CriterionSection,
    DataSection,
    EnvSection,
    ExecutionSection,
    ModelSection,
    RepairSection,
    RewardSection,
    RunSection,
    SearchSection,
    Section,
    SensitivitySection,
)
from prune_env.config.task import TASKS, TaskSection
from prune_env.config.training import FidelitySection, FinetuneSection, PretrainSection, SparsifySection
from prune_env.config.trust import EVERYTHING, Trust, code_in


class RunConfig(Section):
    """Every setting of a run.

    Example:
        >>> config = RunConfig.from_mapping({"model": {"name": "resnet20"}, "data": {"name": "cifar10"}})
        >>> config.budget.keep
        0.5
    """

    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of everything random, from 0 to 2^32 - 1.")
    run: RunSection = Field(default_factory=RunSection)
    task: TaskSection = Field(default_factory=TaskSection)
    model: ModelSection
    data: DataSection
    execution: ExecutionSection = Field(default_factory=ExecutionSection)
    pretrain: PretrainSection = Field(default_factory=PretrainSection)
    sparsify: SparsifySection = Field(default_factory=SparsifySection)
    budget: BudgetSection = Field(default_factory=BudgetSection)
    env: EnvSection = Field(default_factory=EnvSection)
    granularity: SerializeAsAny[GranularitySettings] = Field(default_factory=GranularitySettings)
    criterion: CriterionSection = Field(default_factory=CriterionSection)
    repair: RepairSection = Field(default_factory=RepairSection)
    sensitivity: SensitivitySection = Field(default_factory=SensitivitySection)
    reward: RewardSection = Field(default_factory=RewardSection)
    agent: AgentSection = Field(default_factory=AgentSection)
    search: SearchSection = Field(default_factory=SearchSection)
    finetune: FinetuneSection = Field(default_factory=FinetuneSection)
    fidelity: FidelitySection = Field(default_factory=FidelitySection)

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = (), trust: Trust = EVERYTHING) -> Self:
        """Reads a config file.

        Args:
            path: A YAML file, or the name of a shipped one, for example ``digits``. Text values may hold ``${VAR}`` and
                ``${VAR:-default}``.
            overrides: Texts ``key.path=value`` with a YAML value; of two for one key, the later one counts.
            trust: The code that the file may name. `RunDirectory.settings` reads the file of a run with less trust.

        Returns:
            The settings, with defaults for missing keys.

        Raises:
            ConfigError: The file is missing or no YAML mapping; a key is unknown; a value has a wrong type or is out of
                range; an environment variable is not set; or the file names code that is not trusted. The message names
                every such key.
        """
        return cls.from_mapping(read_yaml(Path(path)), overrides, f"config file {os.fspath(path)!r}", trust)

    @classmethod
    def from_mapping(
        cls,
        document: Mapping[str, Any],
        overrides: Sequence[str] = (),
        source: str = "settings",
        trust: Trust = EVERYTHING,
    ) -> Self:
        """Checks settings that are already a mapping.

        Args:
            document: Sections of keys, as in a config file.
            overrides: As in ``load``.
            source: The name of the settings in error messages.
            trust: As in ``load``.

        Returns:
            The settings, with defaults for missing keys.

        Raises:
            ConfigError: As in ``load``, except for the file.
        """
        renamed, moved = with_new_names(without_gone(document))
        # Rename before and after the overrides, so that an override replaces the file's value under old and new names.
        overrides = [with_new_section(override) for override in overrides]
        paths = [path_with_new_names(override_path(override)) for override in overrides]
        renamed, overridden = with_new_names(with_overrides(renamed, overrides))
        moved |= overridden
        trust.check_texts(cls, renamed, source, (".".join(path) for path in paths))
        filled = with_environment(renamed, os.environ)
        own = trust.also(_code_in_overrides(cls, overrides))
        own.check(cls, filled, source)
        for name in _sections():
            # "reward:" without keys is null in YAML. A missing section becomes empty, so that the error names its
            # missing keys.
            if filled.get(name) is None:
                filled[name] = {}
        whole, given = cls, filled["granularity"]
        # Each granularity adds its keys. If the section is no mapping or the name no text, the validation reports it.
        if isinstance(given, Mapping) and isinstance(name := given.get("name", "channel"), str):
            try:
                section: type[GranularitySettings] = GRANULARITIES.find(name).Settings
            except ConfigError as error:
                origin = OVERRIDES if is_overridden(("granularity", "name"), paths) else source
                raise ConfigError(f"{origin}:\n  {error}") from None
            filled["granularity"] = without_inert(given, "granularity", moved, section.model_fields)
            whole = _with_section(cls, section)
        try:
            config = whole.model_validate(filled)
        except ValidationError as error:
            raise ConfigError(describe_problems(error, whole, source, paths)) from None
        # The values as they were understood: a value may have become a text that names code.
        own.check(cls, config.model_dump(), source)
        TASKS.find(config.task.name)
        return config

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends the given settings to another process: the class with the granularity's section is made there anew."""
        return RunConfig.from_mapping, (self.model_dump(mode="json", exclude_unset=True),)

    def resolved(self) -> dict[str, Any]:
        """All settings with presets filled in, as plain values for JSON and YAML."""
        filled = self.model_copy(update={"agent": self.agent.with_preset()})
        return filled.model_dump(mode="json")

    def dump_yaml(self) -> str:
        """The resolved settings as YAML; ``load`` reads the same settings from it."""
        # ASCII only: PyYAML cannot read back some Unicode line breaks that it writes.
        return yaml.safe_dump(without_references(self.resolved()), sort_keys=False, allow_unicode=False)


def _code_in_overrides(root: type[RunConfig], overrides: Sequence[str]) -> list[str]:
    """The values in overrides that run code: a command line is the user's own word."""
    given, _ = with_new_names(with_overrides({}, overrides))
    return [value for value, _ in code_in(root, with_environment(given, os.environ)).values()]


Config = TypeVar("Config", bound=RunConfig)


@cache
def _with_section(base: type[Config], section: type[GranularitySettings]) -> type[Config]:
    """The settings class with the granularity's own section."""
    extended: type[Config] = create_model(
        base.__name__, __base__=base, __doc__=base.__doc__, granularity=(section, Field(default_factory=section))
    )
    return extended


class KeyDescription(NamedTuple):
    """One key for the docs: path, type, default as in YAML (or "required"), and meaning."""

    key: str
    type: str
    default: str
    description: str


def describe() -> list[KeyDescription]:
    """All keys of a config file, in order."""
    found: list[KeyDescription] = []
    for name, field in RunConfig.model_fields.items():
        section = _sections().get(name)
        fields = {name: field} if section is None else section.model_fields
        for key, entry in fields.items():
            default = "required" if entry.is_required() else json.dumps(entry.get_default(call_default_factory=True))
            path = key if section is None else f"{name}.{key}"
            found.append(KeyDescription(path, _type_text(entry.annotation), default, entry.description or ""))
        if section is GranularitySettings:
            found += _keys_of_granularities()
    return found


def _keys_of_granularities() -> list[KeyDescription]:
    """The keys that only single granularities have."""
    shared = {(key, entry.description) for key, entry in GranularitySettings.model_fields.items()}
    found = []
    for name in GRANULARITIES:
        for key, entry in GRANULARITIES.find(name).Settings.model_fields.items():
            if (key, entry.description) not in shared:
                default = json.dumps(entry.get_default(call_default_factory=True))
                description = f"{name}: {entry.description}"
                found.append(KeyDescription(f"granularity.{key}", _type_text(entry.annotation), default, description))
    return found


def _sections() -> dict[str, type[Section]]:
    return {
        name: field.annotation
        for name, field in RunConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def _type_text(annotation: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(argument) for argument in arguments)
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} times "
        return f"list of {count}{_type_text(arguments[0])}"
    if origin is dict:
        return f"mapping of text to {_type_text(arguments[1])}"
    return "any value"
