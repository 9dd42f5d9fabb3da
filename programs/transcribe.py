import sglang as sgl

from gemma3n_sgl import Recording, hear


@sgl.function
def transcribe(s, recording: Recording, language: str = "", prompt: str = "", timestamps: bool = False):
    """Write down what is said in a recording of any length.

    `prompt` tells of what, with names and words that may occur; `timestamps` makes parts of some 8 seconds, each with its time, instead of 30.
    """
    spoken = f"Transcribe the following speech segment in {language} into {language} text." if language else "Transcribe this audio."
    context = f"Names and words that may occur: {prompt}\n" if prompt else ""
    hear(s, "answer", recording, spoken, context=context, clip_seconds=8 if timestamps else 29.5)
