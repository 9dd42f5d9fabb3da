"""The engine on this machine: install it, start it, watch it, stop it.

choice = choose()                       # the device that is there, and the model that fits it
install(choice.device)                  # once; a moment when it is there already
with LocalEngine(choice) as engine:     # ready when this returns, gone when it is left
    gemma = connect(engine.url)
"""

from gemma3n_sgl.engine.choice import DEMO, DEMO_NAME, Choice, Device, choose
from gemma3n_sgl.engine.installing import DEFAULT_VENV, install, is_installed
from gemma3n_sgl.engine.keeping import kept
from gemma3n_sgl.engine.local import DEFAULT_PORT, LocalEngine
from gemma3n_sgl.engine.progress import LoggedProgress, Progress

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_VENV",
    "DEMO",
    "DEMO_NAME",
    "Choice",
    "Device",
    "LocalEngine",
    "LoggedProgress",
    "Progress",
    "choose",
    "install",
    "is_installed",
    "kept",
]
