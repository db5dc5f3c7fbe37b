"""Fixtures for all tests. Tests never reach a model hub; pretrained weights come through the package index, once."""

import os
from pathlib import Path

os.environ.setdefault("ICL_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("ICL_CACHE", "0")  # a stored score would hide a wrong one

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with public data sets and reference scores, kept beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder with public data sets is not beside the checkout")
    return SHARED


@pytest.fixture(autouse=True)
def _no_leftover_files(tmp_path, monkeypatch):
    """Every test works in its own folder, so default outputs (`runs/…`) never land in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def one_thread():
    """torch computes with one thread, so that a training ends with the same weights each time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
