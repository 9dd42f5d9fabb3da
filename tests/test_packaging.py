"""What is locked, and what the container holds, agrees with what the project declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gemma3n_sgl.engine.choice import GPU_MODEL, SGLANG_VERSION

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PROJECT["project"]["dependencies"]
DEV = PROJECT["dependency-groups"]["dev"]


def locked(name: str) -> dict[str, str]:
    """Package → version; each entry must have hashes, and name no host."""
    text = (ROOT / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    entries = re.findall(r"^(\S+)==(\S+).*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\S", text, re.MULTILINE)), "an entry without version or hash"
    return {canonicalize_name(package): version for package, version, _ in entries}


@pytest.mark.parametrize(("lock", "declared"), [("requirements.lock", RUN), ("requirements-dev.lock", RUN + DEV)])
def test_the_lock_holds_whatever_is_declared_at_a_version_that_will_do(lock: str, declared: list[str]):
    versions = locked(lock)
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), f"make lock: {requirement}"


def test_tests_run_with_the_very_versions_that_users_run():
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


def test_the_container_gets_an_engine_of_the_version_and_model_that_is_installed_elsewhere():
    compose = (ROOT / "compose.yaml").read_text()
    assert f"lmsysorg/sglang:v{SGLANG_VERSION}\n" in compose
    assert f"--model-path={GPU_MODEL}\n" in compose
    assert f"--served-model-name={GPU_MODEL.rpartition('/')[2]}\n" in compose


def test_no_port_of_the_engine_is_published():
    assert re.findall(r"ports: (.*)", (ROOT / "compose.yaml").read_text()) == ['["127.0.0.1:${PORT:-8000}:8000"]']


def test_all_that_the_package_is_made_of_goes_into_the_container():
    """`.dockerignore` leaves out all but what it names."""
    named = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    made_of = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*made_of, "pyproject.toml", "requirements.lock", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} == named
