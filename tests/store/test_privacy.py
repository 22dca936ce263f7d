"""A study folder names neither the user nor the machine, nor a folder of theirs; a password stands nowhere."""

from __future__ import annotations

import getpass
import json
import socket
import time
from pathlib import Path

import pytest
from conftest import ROOT, start
from studies import make_study

from ablations.api import make_report
from ablations.config import privacy
from ablations.config.privacy import private, without_password
from ablations.report import drawing
from ablations.store import leases
from ablations.store.files import clean_log
from ablations.store.leases import Holder, host_name

USER, HOST = "zaphodb", "magrathea-7"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user and a machine that no other text names."""
    folder = tmp_path / "homes" / USER
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LOGNAME", USER)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    return folder


def leaks(folder: Path, home: Path) -> list[str]:
    """Return the files below a folder in whose name or bytes user, machine or home stand."""
    words = [word.encode() for word in (USER, HOST, str(home))]
    return [
        f"{path.relative_to(folder)}: {word.decode()}"
        for path in folder.rglob("*")
        for word in words
        if word in str(path.relative_to(folder)).encode() or (path.is_file() and word in path.read_bytes())
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open '{home}/data/x.png'", "cannot open '<home>/data/x.png'"),
        ("{home}", "<home>"),
        ("{home}-2/x", "{home}-2/x"),
        (
            'File "{home}/.venv/lib/python3.12/site-packages/torch/nn.py", line 3',
            'File "<site-packages>/torch/nn.py", line 3',
        ),
        ("/usr/lib/python3/dist-packages/numpy/x.py:3", "<site-packages>/numpy/x.py:3"),
        (f"{ROOT}/ablations/api.py", "<code>/ablations/api.py"),
        (f"/scratch/{USER}/runs", "/scratch/<user>/runs"),
        (f"worker on {HOST}: lost", "worker on <host>: lost"),
        ("/data/coco/train.json and 3/4", "/data/coco/train.json and 3/4"),
    ],
)
def test_folders_and_names_are_replaced(home, text, shown):
    text, shown = text.replace("{home}", str(home)), shown.replace("{home}", str(home))
    assert private(text) == shown
    assert private(private(text)) == private(text)


@pytest.mark.parametrize(("variable", "folder"), [("HOME", "/"), ("HOME", "/nowhere")])
def test_a_user_without_a_home_or_name_breaks_nothing(monkeypatch, variable, folder):
    def unknown():
        raise KeyError("uid not found")

    monkeypatch.setenv(variable, folder)
    monkeypatch.setattr(privacy.getpass, "getuser", unknown)
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    assert private("/data/x and localhost") == "/data/x and localhost"


@pytest.mark.parametrize(
    ("host", "text", "shown"),
    [
        ("node17", "lost node17.cluster.edu, not node170", "lost <host>, not node170"),
        ("node17.cluster.edu", "node17 and NODE17.cluster.edu.", "<host> and <host>."),
        ("Zaphod.local", "Zaphod, Zaphod.local and zaphods", "<host>, <host> and zaphods"),
        ("test", "the test split of test.png, test: 1, test:10", "the test split of test.png, test: 1, test:10"),
        ("test", "me@test:/x, tcp://test.a.edu:5432, host=test", "me@<host>:/x, tcp://<host>:5432, host=<host>"),
        ("test", "[test]:29500, {'host': 'test'}", "[<host>]:29500, {'host': '<host>'}"),
        ("train.lan", "train on train.lan", "train on <host>"),
        ("2024", "2024 seeds, //2024/x", "2024 seeds, //<host>/x"),
        ("10.0.0.5", "10 of 10.0.0.5", "10 of <host>"),
    ],
)
def test_a_machine_is_replaced_with_its_domain_and_words_stay(home, monkeypatch, host, text, shown):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert private(text) == shown
    assert private(shown) == shown


@pytest.mark.parametrize("text", ["/a" * 50_000, "/" * 50_000, "/a" * 50_000 + "/site-packages"])
def test_a_long_text_of_slashes_takes_no_time(home, text):
    start = time.perf_counter()
    assert private(text) == text
    assert private(f"{text}/dist-packages/x") == f"{text if text[1] == '/' else ''}<site-packages>/x"
    assert time.perf_counter() - start < 2


def test_a_lease_tells_machines_apart_without_their_names(home, monkeypatch):
    here = Holder.here()
    assert HOST not in here.host
    assert not here.is_gone()
    assert host_name(here.host) == HOST
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert leases._host().partition("/")[0] != here.host.partition("/")[0]
    assert host_name(here.host) == here.host[:8]


def test_a_log_is_cleaned_and_its_other_bytes_stay(home, tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(f"a\r{home}/x\r\n".encode() + b"\xff\x00caf\xe9\n")
    clean_log(path)
    assert path.read_bytes() == b"a\r<home>/x\r\n\xff\x00caf\xe9\n"
    clean_log(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s%C3%A9cret@h/db",
        "mysql+pymysql://me:s%C3%A9cret@h:3/db?x=1",
        "redis://h/0?password=s%C3%A9cret",
    ],
)
def test_a_password_is_masked(url):
    for form in ("s%C3%A9cret", "sécret"):
        assert without_password(f"{url}: {form} refused", url).count("***") == 2
    assert without_password("sqlite:///a.db: no", "sqlite:///a.db") == "sqlite:///a.db: no"


@pytest.mark.parametrize(
    ("url", "forms"),
    [
        ("postgresql://me:ge#heim@h/db", ["ge#heim", "ge%23heim"]),
        ("postgresql://me:ge/heim@h/db", ["ge/heim", "ge%2Fheim"]),
        ("postgresql://me:ge?heim@h/db", ["ge?heim", "ge%3Fheim"]),
        ("postgresql://me:ge@heim@h/db", ["ge@heim", "ge%40heim"]),
        ("postgresql://me:a@b/c#d?e@h/db", ["a@b/c#d?e"]),
        ("redis://h/0?password=ge%2fheim", ["ge%2fheim", "ge%2Fheim", "ge/heim"]),
        ("redis://h/0?password=ge%20heim", ["ge%20heim", "ge+heim", "ge heim"]),
        ("redis://h/0?password=ge;heim&x=1", ["ge;heim", "ge%3Bheim"]),
        ("redis://h/0?password=ge#heim", ["ge#heim", "ge%23heim"]),
        ("redis://h/0?pass%77ord=geheim", ["geheim"]),
        *((f"redis://h/0?x=1&{key}=geheim", ["geheim"]) for key in ("api_key", "key", "auth", "cred", "PW")),
        ("x://me:geheim@[?token=heimlich", ["geheim", "heimlich"]),
    ],
)
def test_no_form_of_a_password_stays(url, forms):
    for form in forms:
        assert without_password(f"<{form}> refused", url) == "<***> refused"
    assert not any(form in without_password(url, url) for form in forms)


@pytest.mark.parametrize(
    "url", ["postgresql://me:geheim77@localhost/db", "nosuch+x://me:geheim77@h/db", "x://me:geheim77@["]
)
def test_no_error_of_a_database_has_its_password(cli, tmp_path, url):
    arguments = ("tune", "--search", "lr=1e-4..1e-2:log", "--norm", "l2", "--trials", 1, "--smoke", "--out", tmp_path)
    code, out, err = cli(*arguments, "--storage", url)
    assert code == 2
    assert "--storage" in err
    assert "geheim77" not in out + err


def test_a_report_of_older_records_has_neither_names_nor_folders(home, monkeypatch):
    folder = make_study(home / "runs", norms=("xnorm", "l2"), seeds=2, stories={("l2", 0): "error"}, question="Why?")
    trace = f"File '{home}/x.py' on {HOST} and /mnt/{USER}/y"
    for path in folder.glob("cells/*/outcome.json"):
        record = json.loads(path.read_text())
        record["detail"] = trace * (record["outcome"] == "failed")
        path.write_text(json.dumps(record))
    (folder / "cells" / "broken").mkdir()
    monkeypatch.setattr(drawing, "MOST_PROCESSES", 1)
    make_report([folder], full=False)
    page = (folder / "report.html").read_text()
    assert "--out OUT" in page
    assert "python -m ablations report STUDY" in page
    assert "File &#39;&lt;home&gt;/x.py&#39; on &lt;host&gt; and /mnt/&lt;user&gt;/y" in page
    for path in folder.rglob("outcome.json"):
        path.unlink()
    assert not leaks(folder, home)


PLUGIN = f'''
import getpass, logging, os, socket, sys, warnings
from pathlib import Path
from ufo import AttentionNorm, register

socket.gethostname = lambda: "{HOST}"

@register(name="leaky", label="leaky", formula="-", source="test", invariances=set())
class Leaky(AttentionNorm):
    """Raises an error that names everything."""

    def forward(self, q, k, v):
        what = f"{{Path.home()}}/secret.pt of /mnt/{{getpass.getuser()}} on {{socket.gethostname()}}"
        print(what, what, file=sys.stderr)
        os.write(1, what.encode() + b"\\n")
        warnings.warn(what)
        logging.getLogger("a").warning(what)
        raise RuntimeError(what)
'''


@pytest.mark.slow
@pytest.mark.process
def test_no_file_of_a_study_names_user_machine_or_home(home):
    (home / "leaky.py").write_text(PLUGIN)
    arguments = ("--epochs", 1, "--set", "train_limit=200", "--set", "warmup_epochs=0", "--plugin", "leaky")
    environment = {"HOME": str(home), "LOGNAME": USER, "USER": USER, "PYTHONPATH": f"{ROOT}:{home}"}
    run = (*arguments, "--norm", "xnorm,leaky", "--seeds", 1, "--log", "tensorboard", "--study", "mine")
    tune = (*arguments, "--norm", "xnorm", "--search", "lr=1e-4..1e-2:log", "--trials", 2, "--study", "tuned")
    processes = [
        start(*given, out=home / "runs", command=command, cwd=home, **environment)
        for command, given in (("run", run), ("tune", tune))
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode in (0, 1), err + out
    (failed,) = (home / "runs" / "mine" / "cells").glob("leaky-*")
    assert "<home>/secret.pt of /mnt/<user> on <host>" in (failed / "outcome.json").read_text()
    assert (failed / "log.txt").read_text().count("<home>/secret.pt of /mnt/<user> on <host>") > 3
    assert list((home / "runs" / "mine" / "logs").rglob("*tfevents*"))
    assert (home / "runs" / "mine" / "report.html").is_file()
    assert not leaks(home / "runs", home)
    assert getpass.getuser() == USER
