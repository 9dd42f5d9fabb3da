"""The checkpoint that ships with the package is the one its card describes."""

from __future__ import annotations

import hashlib
import json

from gemma3n_sgl.engine import DEMO


def test_every_file_of_the_demo_is_whole() -> None:
    sums = dict(reversed(line.split()) for line in (DEMO / "SHA256SUMS").read_text().splitlines())
    files = {path.name for path in DEMO.iterdir()} - {"README.md", "SHA256SUMS"}
    assert set(sums) == files
    assert {name: hashlib.sha256((DEMO / name).read_bytes()).hexdigest() for name in files} == sums


def test_the_demo_takes_ten_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 10_000_000


def test_the_demo_is_gemma_3n_and_its_card_says_what_it_is_not() -> None:
    config = json.loads((DEMO / "config.json").read_text())
    assert config["architectures"] == ["Gemma3nForConditionalGeneration"]
    card = (DEMO / "README.md").read_text()
    for fact in (
        "license: apache-2.0",
        "synthetic data",
        "none of Google's weights",
        f"{config['text_config']['max_position_embeddings']:,} tokens",
    ):
        assert fact in card
