import sglang as sgl

from gemma3n_sgl import Cues, Recording, assistant, condensed, hear, user


@sgl.function
def ask_recording(s, recording: Recording, question: str):
    """Answer a question about a recording of any length from what is said in it; of a long one, from notes on its parts."""
    hear(s, "transcript", recording, "Transcribe this audio.", as_text=Cues("text"))
    helpful = "Note down what in this part of a transcript helps to answer the question, with its times, or nothing if nothing does."
    notes = condensed(s, "notes", s["transcript"], f"{helpful}\nQuestion: {question}")
    s += user("What is said in a recording, with times:\n\n", notes, "\n\n", question)
    s += assistant(sgl.gen("answer"))
