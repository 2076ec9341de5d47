"""Typed options of a sink: decoding what an operator typed, and describing it to a form.

A sink declares its options as a subclass of `SinkOptions` (a msgspec struct): units in the names,
constraints in `msgspec.Meta`, a sentence of help in `Meta(description=…)`.  Unknown options are
refused.  `Secret` values never appear in a repr, a log line or an error.

Pure functions; any thread may call them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, TypeVar

import msgspec
from msgspec import inspect as msgspec_inspect


class OptionsError(ValueError):
    """The options are wrong; the text names each option, never a secret's value."""


class Secret:
    """A value that is used and never shown: `reveal` is the one way to read it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the call that needs it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class SinkOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every sink's options; `__post_init__` raises ValueError for rules across fields."""


class NoOptions(SinkOptions, frozen=True, kw_only=True):
    """For a sink that has nothing to set."""


_O = TypeVar("_O", bound=SinkOptions)

Kind = Literal["int", "float", "bool", "text", "choice", "secret", "mapping", "list", "json"]
_MISSING: Final[Any] = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionField:
    """One option as a form shows it.  `default` is None where the option is required."""

    name: str
    kind: Kind
    required: bool
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False  # None is a value of its own

    _plain: ClassVar[dict[type, Kind]] = {int: "int", float: "float", bool: "bool", str: "text"}


def _decode_hook(wanted: type, value: Any) -> Any:
    if wanted is Secret:
        if not isinstance(value, str):
            raise ValueError("Expected `str`")
        return Secret(value)
    raise NotImplementedError(wanted)


def decode_options(struct: type[_O], values: dict[str, Any]) -> _O:
    """Plain JSON values as the typed options; raises OptionsError naming what is wrong."""
    unknown = sorted(set(values) - set(struct.__struct_fields__))
    if unknown:
        known = ", ".join(struct.__struct_fields__) or "none"
        raise OptionsError(
            f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} "
            f"(known are: {known})"
        )
    try:
        return msgspec.convert(values, struct, dec_hook=_decode_hook)
    except msgspec.ValidationError as error:
        raise OptionsError(_readable(str(error))) from None
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _readable(message: str) -> str:
    """msgspec says "Expected `int` >= 1 - at `$.max_bytes`"; an operator reads the option first."""
    text, separator, place = message.partition(" - at `$")
    if not separator:
        return message.replace("Object missing required field", "missing option")
    name = place.rstrip("`").lstrip(".")
    return f"{name}: {text[:1].lower()}{text[1:]}" if name else text


def describe_options(struct: type[SinkOptions]) -> list[OptionField]:
    """The options of a sink in the order they were declared."""
    info = msgspec_inspect.type_info(struct)
    assert isinstance(info, msgspec_inspect.StructType)
    return [_describe(field) for field in info.fields]


@lru_cache(maxsize=256)
def secret_names(struct: type[SinkOptions]) -> frozenset[str]:
    """The names of the options that must never be shown."""
    return frozenset(field.name for field in describe_options(struct) if field.kind == "secret")


def _describe(field: msgspec_inspect.Field) -> OptionField:
    declared, help_text = field.type, ""
    if isinstance(declared, msgspec_inspect.Metadata):
        help_text = (declared.extra_json_schema or {}).get("description", "")
        declared = declared.type
    optional = False
    if isinstance(declared, msgspec_inspect.UnionType):
        members = [t for t in declared.types if not isinstance(t, msgspec_inspect.NoneType)]
        optional = len(members) < len(declared.types)
        if len(members) == 1:
            declared = members[0]
            if isinstance(declared, msgspec_inspect.Metadata):
                help_text = help_text or (declared.extra_json_schema or {}).get("description", "")
                declared = declared.type
    default = field.default
    if default is msgspec.NODEFAULT:
        default = None if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    kind, choices = _kind(declared)
    return OptionField(
        name=field.name,
        kind=kind,
        required=field.required,
        default=default,
        help=help_text,
        choices=choices,
        minimum=getattr(declared, "ge", None),
        maximum=getattr(declared, "le", None),
        optional=optional,
    )


def _kind(declared: msgspec_inspect.Type) -> tuple[Kind, tuple[str, ...]]:
    match declared:
        case msgspec_inspect.IntType():
            return "int", ()
        case msgspec_inspect.FloatType():
            return "float", ()
        case msgspec_inspect.BoolType():
            return "bool", ()
        case msgspec_inspect.StrType():
            return "text", ()
        case msgspec_inspect.LiteralType(values=values):
            return "choice", tuple(str(value) for value in values)
        case msgspec_inspect.CustomType(cls=cls) if cls is Secret:
            return "secret", ()
        case msgspec_inspect.DictType(value_type=msgspec_inspect.StrType()):
            return "mapping", ()
        case msgspec_inspect.ListType(item_type=msgspec_inspect.StrType()):
            return "list", ()
        case _:
            return "json", ()
