"""Foreign bytes → values. Only this room makes an `Image`, an `Audio` or a `Recording` from bytes it did not make itself."""

from gemma3n_sgl.media.audio import one_clip, open_audio, open_recording, open_sound
from gemma3n_sgl.media.cutting import Clip, Damage, batches, clips
from gemma3n_sgl.media.decoding import decode, playing_time
from gemma3n_sgl.media.fetch import fetch
from gemma3n_sgl.media.images import open_image, tiles
from gemma3n_sgl.media.inline import base64_bytes, data_uri
from gemma3n_sgl.media.limits import Limits
from gemma3n_sgl.media.microphone import Live, open_microphone
from gemma3n_sgl.media.turns import Turns

__all__ = [
    "Clip",
    "Damage",
    "Limits",
    "Live",
    "Turns",
    "base64_bytes",
    "batches",
    "clips",
    "data_uri",
    "decode",
    "fetch",
    "one_clip",
    "open_audio",
    "open_image",
    "open_microphone",
    "open_recording",
    "open_sound",
    "playing_time",
    "tiles",
]
