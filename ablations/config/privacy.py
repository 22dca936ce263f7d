"""What records and reports leave out: the user's and the machine's name, and the folders that only this machine has."""

from __future__ import annotations

import functools
import getpass
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, quote_plus, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]

LEAST_HOST = 4
"""Shortest name of a machine that is replaced, in characters: shorter ones are words too."""

_PACKAGES = re.compile(r"(?:<home>|<code>)?(?:/[^\s\"':<>/]+)*/(?:site|dist)-packages(?=/)")

_PASSWORD = re.compile("pass|pwd|secret|token", re.IGNORECASE)
"""Parameter of a database's URL that holds a password."""


def private(text: str) -> str:
    """Replace the folders of packages, of the code and of the user, and the names of user and machine.

    Other paths stay as they are.

    >>> private("File /opt/lib/python3.12/site-packages/torch/nn.py")
    'File <site-packages>/torch/nn.py'
    """
    return hider()(text)


def hider() -> Callable[[str], str]:
    """Return `private` for many texts."""
    return _replacer(str(Path.home()), _user(), socket.gethostname())


def placeless(folder: Path, placeholder: str) -> str:
    """Write a folder for a command in a report: a placeholder if its path is the user's or the machine's.

    >>> placeless(Path("runs"), "OUT"), placeless(Path.home() / "runs", "OUT")
    ('runs', 'OUT')
    """
    return str(folder) if private(str(folder)) == str(folder) else placeholder


def without_password(text: str, url: str) -> str:
    """Replace the password of a database's URL, wherever a text has it.

    >>> without_password("postgresql://me:secret@host/db: secret", "postgresql://me:secret@host/db")
    'postgresql://me:***@host/db: ***'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return text.replace(url, "***")
    found = [parts.password, *(value for key, value in parse_qsl(parts.query) if _PASSWORD.search(key))]
    forms = {form for password in filter(None, found) for form in (password, unquote(password), quote_plus(password))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


@functools.lru_cache(maxsize=8)
def _replacer(home: str, user: str, host: str) -> Callable[[str], str]:
    """Return a function that replaces names and folders in a text."""
    folders = {str(ROOT): "<code>"}
    if len(Path(home).parts) > 1:
        folders |= {home: "<home>", str(Path(home).resolve()): "<home>"}
    rules = [
        (re.compile(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])"), name)
        for folder, name in sorted(folders.items(), key=lambda pair: -len(pair[0]))
    ]
    rules.append((_PACKAGES, "<site-packages>"))
    if user:
        rules.append((re.compile(rf"(?<=/){re.escape(user)}(?![\w.-])"), "<user>"))
    if len(host) >= LEAST_HOST and host != "localhost":
        rules.append((re.compile(rf"(?<![\w-]){re.escape(host)}(?![\w-])"), "<host>"))

    def replace(text: str) -> str:
        if "/" in text or host in text:
            for pattern, name in rules:
                text = pattern.sub(name, text)
        return text

    return replace


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return ""
