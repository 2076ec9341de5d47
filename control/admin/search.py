"""Text search in one column, in the words of a search box.

Words are joined by AND; a word finds whole words and their beginnings; "a phrase" in quotes, -word
to exclude, ~part for text anywhere inside words (slower: no index can help). On PostgreSQL the
words meet the index, which holds a text's first `SEARCHED_CHARACTERS`, so that no more is searched;
on SQLite every term is a LIKE over the whole text, which finds a superset. Pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Func, Q, QuerySet, Value
from django.db.models.fields import BooleanField

from control.partitions.search import words_expression

MAX_TERMS = 12
_TERM = re.compile(r'(?P<sign>-?)(?:"(?P<phrase>[^"]*)"?|(?P<inside>~)?(?P<word>\S+))')


@dataclass(frozen=True, kw_only=True)
class Term:
    text: str
    exact: bool = False
    inside: bool = False
    exclude: bool = False


def terms(text: str) -> list[Term]:
    """The terms of a search, at most `MAX_TERMS`."""
    found = []
    for match in _TERM.finditer(text):
        exclude = bool(match["sign"])
        if match["phrase"] is not None:
            term = Term(text=match["phrase"].strip(), exact=True, exclude=exclude)
        else:
            term = Term(text=match["word"], inside=bool(match["inside"]), exclude=exclude)
        if term.text:
            found.append(term)
    return found[:MAX_TERMS]


class _Words(Func):
    """`to_tsvector(…) @@ …`, written as the index has it, or it is not used."""

    output_field = BooleanField()
    arity = 2
    # A phrase is `'a' <-> 'b'`; with `:*` its last word may go on. Text without a word makes an
    # empty query, which finds nothing.
    template = (
        "%(words)s @@ "
        "COALESCE(NULLIF(phraseto_tsquery('simple', %(text)s)::text, '') || %(suffix)s, '')"
        "::tsquery"
    )

    def __init__(self, column: str, text: str, *, prefix: bool) -> None:
        self.prefix = prefix
        super().__init__(F(column), Value(text))

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **extra: Any
    ) -> tuple[str, list[Any]]:
        column, column_params = compiler.compile(self.source_expressions[0])
        text, text_params = compiler.compile(self.source_expressions[1])
        suffix = "':*'" if self.prefix else "''"
        sql = self.template % {"words": words_expression(column), "text": text, "suffix": suffix}
        return sql, [*column_params, *text_params]


def search(queryset: QuerySet[Any], column: str, text: str, *, indexed: bool) -> QuerySet[Any]:
    """`queryset` narrowed to rows whose `column` has every term of `text`.

    `indexed`: the database is PostgreSQL and the column has the words index.
    """
    for term in terms(text):
        if indexed and not term.inside:
            words = _Words(column, term.text, prefix=not term.exact)
            queryset = queryset.exclude(words) if term.exclude else queryset.filter(words)
        else:
            inside = Q(**{f"{column}__icontains": term.text})
            queryset = queryset.filter(~inside if term.exclude else inside)
    return queryset
