"""What records and reports leave out: the user's and the machine's name, and the folders that only this machine has."""

from __future__ import annotations

import functools
import getpass
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from ablations.config.paths import real_path

ROOT = Path(__file__).resolve().parents[2]

LEAST_HOST = 4
"""Shortest name of a machine that is replaced within prose, in characters: shorter ones are words too."""

_PATH = re.compile(r"(?:<home>|<code>)?(?:/[^\s\"':<>/]+)+/?")
"""A path, which is matched without going back."""

_PASSWORD = re.compile("pass|pw|secret|token|key|auth|cred", re.IGNORECASE)
"""Parameter of a database's URL that holds a password."""

_LOGINS = (re.compile(r"://[^:/]*:([^@]*)@"), re.compile(r"://[^:/?#]*:(.*)@", re.DOTALL))
"""Password of a database's URL as SQLAlchemy reads it, to the first @, and one that has an @ itself."""


def private(text: str) -> str:
    """Replace the folders of packages, of the code and of the user, and the names of user and machine.

    Other paths stay as they are. A machine's name goes with the domain after it. Its first part is replaced everywhere
    if it cannot be a word: it has a letter, four characters or more, and a digit, a hyphen or a capital. Another one,
    such as ``test``, is replaced with its own domain, and where it stands as a host: after ``@``, ``//`` or ``host=``,
    and before a port.

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
    forms = {form for password in _passwords(url) for form in _forms(password)}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(pattern, "***", text) if forms else text


def _passwords(url: str) -> Iterator[str]:
    """Give what may be a password in a database's URL, as it stands there; a @, # or ; may belong to it or end it."""
    for login in _LOGINS:
        yield from login.findall(url)
    for ends in ("[?&;#]", "[?&]"):
        for parameter in re.split(ends, url)[1:]:
            key, _, value = parameter.partition("=")
            if _PASSWORD.search(unquote(key)):
                yield value


def _forms(password: str) -> set[str]:
    """Return a password as it stands in a URL, as it is, and as libraries write it again; nothing if it is empty."""
    plain = {password, unquote(password), unquote_plus(password)}
    again = {write(text) for text in plain for write in (quote, quote_plus, lambda text: quote(text, safe=" +"))}
    return {form for form in plain | again if form}


@functools.lru_cache(maxsize=8)
def _replacer(home: str, user: str, host: str) -> Callable[[str], str]:
    """Return a function that replaces names and folders in a text."""
    folders = {str(ROOT): "<code>"}
    if len(Path(home).parts) > 1:
        folders |= {home: "<home>", str(real_path(Path(home))): "<home>"}
    rules = [
        (re.compile(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])"), name)
        for folder, name in sorted(folders.items(), key=lambda pair: -len(pair[0]))
    ]
    users = [(re.compile(rf"(?<=/){re.escape(user)}(?![\w.-])"), "<user>")] if user else []
    machine, hosts = host.partition(".")[0].lower(), _host_rules(host)

    def replace(text: str) -> str:
        if "/" in text:
            for pattern, name in rules:
                text = pattern.sub(name, text)
            if "-packages/" in text:
                text = _PATH.sub(_without_packages, text)
            for pattern, name in users:
                text = pattern.sub(name, text)
        if hosts and machine in text.lower():
            for pattern in hosts:
                text = pattern.sub(r"\g<before><host>", text)
        return text

    return replace


def _without_packages(path: re.Match[str]) -> str:
    """Replace the folder of packages at the start of a path."""
    text = path[0]
    start = max(text.rfind("/site-packages/"), text.rfind("/dist-packages/"))
    return text if start < 0 else f"<site-packages>{text[text.index('/', start + 1) :]}"


def _host_rules(host: str) -> list[re.Pattern[str]]:
    """Return the patterns of a machine's name, each with a group `before` that stays."""
    short = host.partition(".")[0]
    if not host or host == "localhost" or short == "localhost":
        return []
    name, domain, end = re.escape(short), r"(?:\.[a-z][a-z0-9-]*)*", r"(?![\w-])"
    is_coded = re.search(r"[\d-]", short) is not None
    if len(short) >= LEAST_HOST and re.search("[A-Za-z]", short) and (is_coded or short.lower() != short):
        named = f"(?i:{name})" if is_coded else name
        return [re.compile(rf"(?P<before>)(?<![\w-]){named}(?i:{domain}){end}")]
    whole = [re.compile(rf"(?P<before>)(?<![\w-]){re.escape(host)}{end}", re.IGNORECASE)] if short != host else []
    after = rf"(?P<before>@|//|\bhost(?:name)?[\"']?\s*[=:]\s*[\"']?){name}{domain}{end}"
    before_port = rf"(?P<before>)(?<![\w-]){name}{domain}(?=\]?:\d{{4,5}}\b)"
    return [*whole, re.compile(after, re.IGNORECASE), re.compile(before_port, re.IGNORECASE)]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return ""
