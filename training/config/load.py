"""One way in for every YAML file of the training: read, extended, overridden, checked against a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Settings = TypeVar("Settings", bound=BaseModel)
#: Where the configs of this repository are.
CONFIGS = Path(__file__).parents[1] / "configs"
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class ConfigError(ValueError):
    """A config that cannot be used; the sentence says which key and what to do."""


def load_settings(model: type[Settings], path: str | Path, overrides: Iterable[str] = ()) -> Settings:
    """Read a YAML file with all it extends, set `dotted.key=value` overrides, and check it against `model`.

    `extends: OTHER.yaml` is relative to the file it stands in; its values count where that file sets none.
    Raises ConfigError, in a sentence, for unknown keys (with the nearest one) and values that do not fit.
    """
    path = Path(path)
    values = _read(path, ())
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f'"{override}" is not an override: write key=value, such as seed=1.')
        try:
            _set(values, key.strip(), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f'"{override}" is not YAML after the =: {error}.') from error
    return check_settings(model, values, path.name)


def find_config(config: str | Path, folder: str = "") -> Path:
    """A config's path; a bare name is one of `training/configs`, or of a folder in it."""
    path, root = Path(config), CONFIGS / folder
    if path.suffix or path.exists():
        return path
    named = root / f"{config}.yaml"
    if not named.is_file():
        names = sorted(str(p.relative_to(root).with_suffix("")) for p in root.glob("**/*.yaml"))
        raise ConfigError(f'There is no config "{config}": give a YAML file or one of {", ".join(names)}.')
    return named


def check_settings(model: type[Settings], values: Mapping[str, Any], name: str = "The config") -> Settings:
    """The settings of nested plain values. Raises ConfigError, the sentence starting with `name`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_sentence(model, problem) for problem in error.errors())
        raise ConfigError(f"{name}: {problems}" + ("" if problems.endswith("?") else ".")) from error


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in above:
        raise ConfigError(f"{path.name} extends itself: {' > '.join(p.name for p in (*above, path))}.")
    if not path.is_file():
        raise ConfigError(f"There is no config {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must be keys with values, not a {type(values).__name__}.")
    parent = values.pop("extends", None)
    return values if parent is None else _merged(_read(path.parent / str(parent), (*above, path)), values)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{dotted} cannot be set: {section} is a value and has no keys.")
    values[last] = value


def _sentence(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in _UNKNOWN:
        section, _, last = key.rpartition(".")
        near = _nearest(model, section, last)
        hint = f'; did you mean "{near}"?' if near else ""
        place = f" in {section}" if section else ""
        return f'there is no key "{last}"{place}{hint}'
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key or 'the whole'} {message[0].lower()}{message[1:]}" if key else message


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys


def _nearest(model: type[BaseModel], section: str, last: str) -> str | None:
    """The key that was meant: of the same section, of the same name elsewhere, or of a similar one."""
    keys = _keys(model)
    ends = [key.rpartition(".")[2] for key in keys]
    here = [end for key, end in zip(keys, ends, strict=True) if key.rpartition(".")[0] == section]
    if close := difflib.get_close_matches(last, here, n=1):
        return f"{section}.{close[0]}" if section else close[0]
    close = difflib.get_close_matches(last, ends, n=1)
    return keys[ends.index(close[0])] if close else None
