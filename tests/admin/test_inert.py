from __future__ import annotations

from control.admin.inert import inert, one_line
from control.admin.jsonview import MAX_DEPTH, MAX_MARKED, json_html

EVIL = "<script>alert(1)</script>"


def test_active_characters_are_written_out() -> None:
    assert inert("a\x1b[31mb\u202ec\x00d\ud800") == "a\\u001b[31mb\\u202ec\\u0000d\\ud800"
    assert inert("tab\tand\nline, é and 日本 stay") == "tab\tand\nline, é and 日本 stay"


def test_text_is_cut_at_its_limit() -> None:
    assert inert("abcdef", limit=3) == "abc…"
    assert one_line("a\n  b\tc", limit=10) == "a b c"
    assert len(one_line("x" * 10_000, limit=50)) == 51


def test_json_is_laid_out_and_escaped() -> None:
    html = json_html({EVIL: [EVIL, 1, 1.5, True, None, {}, []], "n": {"a": "b"}})
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert '\n    <span class="j-number">1.5</span>,' in html
    assert '<span class="j-word">null</span>' in html


def test_json_keeps_direction_marks_and_surrogates_visible() -> None:
    html = json_html({"a": "\u202egnp.exe", "b": "\udc80"})
    assert "\\u202e" in html
    html.encode()


def test_large_json_is_plain_and_still_escaped() -> None:
    html = json_html([EVIL] * (MAX_MARKED + 1))
    assert "j-text" not in html
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == MAX_MARKED + 1


def test_deep_json_is_cut_with_a_note() -> None:
    value: object = "bottom"
    for _ in range(MAX_DEPTH + 5):
        value = [value]
    html = json_html(value)
    assert "deeper than can be shown" in html
    assert "bottom" not in html
