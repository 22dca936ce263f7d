"""The disk cache of compiled code."""

from __future__ import annotations

import os

import pytest
from torch import nn

from ablations.training.compiled import compiled

CACHE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.mark.parametrize("own", ["", "/mine"])
def test_workers_share_the_cache_of_the_project_or_the_users_own(monkeypatch, cache, own):
    monkeypatch.setenv(CACHE, own)
    if not own:
        monkeypatch.delenv(CACHE)
    compiled(nn.Identity())
    assert os.environ[CACHE] == (own or str(cache / "compiled"))
