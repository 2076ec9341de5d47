"""The HTTP(S) probe: our own HTTP/1.1 client over raw asyncio protocols, and what it judges by.

`address` (URLs), `options` (what an operator says), `plan` (what is sent), `exchange` (one
connection), `answer` with `chunks` and `encodings` (reading), `conditions` with `statuses`,
`jsoncondition` and `regexes` (judging), `kind` (the probe).
"""

from healthmon.probes.http.kind import KIND

__all__ = ["KIND"]
