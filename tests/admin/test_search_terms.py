from __future__ import annotations

from control.admin.search import MAX_TERMS, Term, terms


def test_words_phrases_exclusions_and_parts() -> None:
    assert terms('installed "to be done" -debug ~ibc -"not this"') == [
        Term(text="installed"),
        Term(text="to be done", exact=True),
        Term(text="debug", exclude=True),
        Term(text="ibc", inside=True),
        Term(text="not this", exact=True, exclude=True),
    ]


def test_odd_input_is_not_an_error() -> None:
    assert terms('  " ') == []
    assert terms('"open') == [Term(text="open", exact=True)]
    assert terms("-") == [] or terms("-") == [Term(text="-")]
    assert len(terms("a " * 100)) == MAX_TERMS
