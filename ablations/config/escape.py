"""Text that comes from elsewhere, made safe to show: names, paths, messages of libraries, logs."""

from __future__ import annotations

import hashlib
import re

INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufff9-\ufffb"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Controls, which a terminal obeys, bytes that are no characters, and the code points that Unicode ignores by default:
signs without width, by which two names look alike, and those that turn the direction of writing. The joiners of some
scripts (U+200C, U+200D) and the variants of signs (U+FE00 to U+FE0F) are not among them."""

LONGEST_SHOWN, LONGEST_MARK = 2_000, 28
"""Characters of a text that is shown in full, and of the words for what is left out of a longer one."""

LONGEST_LABEL = 200
"""Characters of the longest name that a figure shows in full."""

_IN_A_LINE, _IN_LINES = re.compile(rf"[\t\n{INVISIBLE}]"), re.compile(f"[{INVISIBLE}]")
_HALF = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Write a text in one line, with controls and line breaks as escapes.

    >>> print(visible("\x1b[31mred\u202e\nline"))
    \x1b[31mred\u202e\nline
    """
    return _IN_A_LINE.sub(_escape, text)


def visible_lines(text: str) -> str:
    r"""Write a text of several lines, with controls as escapes.

    >>> print(visible_lines("\x1b[31mred\u202e\nline"))
    \x1b[31mred\u202e
    line
    """
    return _IN_LINES.sub(_escape, text)


def shortened(text: str, most: int = LONGEST_SHOWN) -> str:
    """Leave out the middle of a long text, and say so.

    Args:
        text: text of any length.
        most: most characters of the result, so that a text that was shortened stays as it is; 60 or more.

    >>> shortened(100 * "a", 60), shortened(60 * "a", 60) == 60 * "a"
    ('aaaaaaaaaaaaaaaa [68 characters] aaaaaaaaaaaaaaaa', True)
    """
    if len(text) <= most:
        return text
    half = (most - LONGEST_MARK) // 2
    return f"{text[:half]} [{len(text) - 2 * half:,} characters] {text[-half:]}"


def is_readable(text: str) -> bool:
    r"""Tell whether a text has characters only, and so can be written: no half of one, no byte that is none.

    >>> is_readable("é"), is_readable("\udcff")
    (True, False)
    """
    return _HALF.search(text) is None


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def figure_text(text: str) -> str:
    r"""Escape a text for matplotlib, which would set what stands between two dollars as a formula.

    >>> print(figure_text("a $x$ b"))
    a \$x\$ b
    """
    return visible_lines(text).replace("$", r"\$")


def figure_label(text: str) -> str:
    """Escape a name or a title for matplotlib, and leave out the middle of a long one, which would fill the figure.

    Different texts stay different, since figures group by names: a hash follows a text that is cut.
    """
    if len(text) <= LONGEST_LABEL:
        return figure_text(text)
    return figure_text(f"{shortened(text, LONGEST_LABEL)} #{hashlib.sha256(text.encode()).hexdigest()[:6]}")
