import sglang as sgl

from gemma3n_sgl import Cues, Recording, assistant, condensed, hear, user

MINUTES = """{"type": "object", "additionalProperties": false, "required": ["summary", "decisions", "action_items"], "properties": {
  "summary": {"type": "string", "maxLength": 1200},
  "decisions": {"type": "array", "maxItems": 12, "items": {"type": "string", "maxLength": 240}},
  "action_items": {"type": "array", "maxItems": 16, "items": {
    "type": "object", "additionalProperties": false, "required": ["who", "what", "when"], "properties": {
      "who": {"type": "string", "maxLength": 60}, "what": {"type": "string", "maxLength": 240}, "when": {"type": "string", "maxLength": 60}}}}
}}"""


@sgl.function
def minutes(s, recording: Recording, language: str = "English"):
    """Write the minutes of a recorded meeting of any length as JSON: summary, decisions, action_items (who, what, when)."""
    hear(s, "transcript", recording, "Transcribe this audio.", as_text=Cues("text"))
    notes = condensed(s, "notes", s["transcript"], "Note down what this part of a meeting says, decides, and gives somebody to do, with names.")
    s += user(f"Write the minutes of this meeting as JSON, in {language}. Leave a list empty where there is nothing for it.\n\n", notes)
    s += assistant(sgl.gen("answer", json_schema=MINUTES, temperature=0))
