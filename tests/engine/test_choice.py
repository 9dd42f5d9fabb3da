"""The model that fits the machine is chosen, and clients never see a path for its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemma3n_sgl.engine.choice import DEMO, DEMO_NAME, GPU_MODEL, Choice, choose, detect
from gemma3n_sgl.errors import SettingsError


def checkpoint(folder: Path, generation: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_an_nvidia_device_makes_it_the_gpu(tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    assert detect((str(device),)) == "cpu"
    device.touch()
    assert detect((str(device),)) == "gpu"


def test_a_machine_without_a_gpu_gets_the_demo_and_one_with_a_gpu_the_real_model() -> None:
    assert choose("cpu") == Choice("cpu", str(DEMO), DEMO_NAME)
    assert choose("gpu") == Choice("gpu", GPU_MODEL, "gemma-3n-E4B-it")


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_is_served_under_its_last_part(ending: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "my-gemma")
    assert choose("gpu", str(folder) + ending) == Choice("gpu", str(folder), "my-gemma")


def test_a_name_given_is_taken() -> None:
    assert choose("gpu", "google/gemma-3n-E2B-it", "team/gemma").name == "team/gemma"


@pytest.mark.parametrize("name", ["/models/gemma", "./gemma", "~/gemma", "../gemma"])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(SettingsError, match="looks like a path"):
        choose("cpu", None, name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"holds no model \(no config.json\)"):
        choose("cpu", str(tmp_path))
    with pytest.raises(SettingsError, match="holds no model"):
        choose("cpu", "/no/such/folder")


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        ({"do_sample": False, "temperature": 1.0, "top_k": 64}, {"temperature": 0}),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "eos_token_id": 1},
            {"temperature": 0.7, "top_k": 40, "top_p": 0.9},
        ),
        ({"do_sample": True, "top_k": 0, "min_p": None, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"do_sample": True}, {}),
        (None, {}),
    ],
)
def test_sampling_is_what_the_checkpoint_asks_for(generation: dict[str, Any] | None, sampling: dict[str, float], tmp_path: Path) -> None:
    assert choose("cpu", str(checkpoint(tmp_path / "model", generation))).sampling == sampling


def test_a_model_on_the_hub_says_nothing_of_sampling_yet() -> None:
    assert choose("gpu").sampling == {}
