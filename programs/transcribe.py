import sglang as sgl

from gemma3n_sgl import Recording, hear


@sgl.function
def transcribe(s, recording: Recording, language: str = ""):
    """Write down what is said in a recording of any length."""
    spoken = f"Transcribe the following speech segment in {language} into {language} text."
    hear(s, "answer", recording, spoken if language else "Transcribe this audio.")
