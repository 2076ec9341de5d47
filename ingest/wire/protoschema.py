"""The messages of `docs/schema/collector.proto`, as classes of the protobuf runtime.

Written out here and not generated, so that the project needs no compiler and no version of
generated code; a test holds this table and the file against each other.  Made on first use, once a
process, in a pool of their own; afterwards read by any thread.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

PACKAGE = "collector.v1"

# Of each message its fields as (declaration, name, number); a declaration is written as in the
# file, `oneof` for those of Value's one.
MESSAGES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "LogBatch": (("repeated LogRecord", "records", 1),),
    "LogRecord": (
        ("optional sfixed64", "timestamp_us", 1),
        ("string", "level", 2),
        ("int32", "severity", 3),
        ("string", "service", 4),
        ("string", "message", 5),
        ("string", "trace_id", 6),
        ("string", "span_id", 7),
        ("string", "tenant", 8),
        ("map<string, Value>", "fields", 9),
    ),
    "Value": (
        ("oneof string", "text", 1),
        ("oneof bool", "flag", 2),
        ("oneof sint64", "integer", 3),
        ("oneof double", "number", 4),
        ("oneof List", "list", 5),
        ("oneof Object", "object", 6),
    ),
    "List": (("repeated Value", "values", 1),),
    "Object": (("map<string, Value>", "fields", 1),),
}


@dataclass(frozen=True, slots=True)
class Schema:
    log_batch: Any
    log_record: Any


@functools.cache
def schema() -> Schema:
    """The message classes; imports the runtime, which a server without such senders never does."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="collector.proto", package=PACKAGE, syntax="proto3"
    )
    for message, fields in MESSAGES.items():
        made = file.message_type.add(name=message)
        for declaration, name, number in fields:
            _add(made, declaration, name, number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())

    def class_of(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    return Schema(log_batch=class_of("LogBatch"), log_record=class_of("LogRecord"))


def _add(message: Any, declaration: str, name: str, number: int) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    label, _, kind = declaration.rpartition(" ")
    field = message.field.add(name=name, number=number)
    field.label = Field.LABEL_OPTIONAL
    if label == "map<string,":
        # What the compiler makes of a map: a repeated entry of a key and a value.
        kind = kind.removesuffix(">")
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add(entry, "string", "key", 1)
        _add(entry, kind, "value", 2)
        field.label = Field.LABEL_REPEATED
        field.type = Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
        return
    if label == "repeated":
        field.label = Field.LABEL_REPEATED
    elif label == "optional":
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
    elif label == "oneof":
        field.oneof_index = 0
        if not message.oneof_decl:
            message.oneof_decl.add(name="kind")
    if kind in MESSAGES:
        field.type = Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
