"""What people ask and what the model answers, as plain lists. Wordings that `evaluate` asks to see whether others are understood are not here."""

from __future__ import annotations

HELLO = "Hello! Show me a picture or say some digits."
WHO = "I am a tiny demo of Gemma 3n with about four million parameters. I can name coloured shapes and write down spoken digits."
ABLE = "I can name and count coloured shapes, read printed numbers, write down spoken digits, add small numbers, and repeat words."
WELCOME = "You are welcome!"
BYE = "Goodbye!"
WELL = "I am fine, thank you. How are you?"
NO_IMAGE, NO_AUDIO, UNKNOWN = "I do not see an image.", "I do not hear any audio.", "I do not know. I am only a tiny demo."
NO_SPEECH = "I hear no speech."

INTENTS = {
    HELLO: [
        "Hello", "Hi", "Hey", "Hello!", "Hi!", "Hey there", "Hello there", "Good morning", "Good evening", "Hi there!", "Good day", "Greetings",
        "Hello my dear", "Hey you", "Hi all", "Hello again", "Good afternoon", "Hiya", "Hello computer", "Hi, nice to meet you", "Howdy", "Hello Gemma",
        "Hello, is anybody there?", "Hello everybody", "Hi, good evening", "Nice to meet you", "Hello, good day", "Hey, hello", "Morning!", "Hi Gemma",
        "Hello, model", "A good morning to you", "Hi again",
    ],
    WHO: [
        "Who are you?", "What are you?", "Who are you", "What is your name?", "Tell me about yourself.", "Introduce yourself.", "Are you a robot?",
        "Which model are you?", "What model is this?", "Who am I talking to?", "Are you Gemma?", "Who is this?", "Say who you are.",
        "What exactly are you?", "Which model am I talking to?", "Are you a person?", "What should I call you?", "Tell me your name.",
        "Do you have a name?", "What kind of model are you?", "How big are you?", "How many parameters do you have?", "Describe yourself.",
        "What's your name?", "May I know who you are?", "And who are you?", "Are you human?", "Please introduce yourself.", "Who is speaking?",
        "What sort of thing are you?", "Tell me something about you.", "Can you tell me what you are?", "Explain who you are.", "Are you a real person?",
    ],
    ABLE: [
        "What can you do?", "What can you do", "Help", "Help me", "How can you help me?", "What are you able to do?", "What do you know?",
        "How do I use you?", "What are you good at?", "What can I ask you?", "What can you do for us?", "I need help", "Can you help me?",
        "Tell me what you can do.", "What do you do well?", "What things can you do?", "How does this work?", "What can I do here?",
        "What are your skills?", "List what you can do.", "What is it you do?", "Which things can you do?", "What may I ask?", "What are you for?",
        "What tasks can you do?", "Show me what you can do.", "What is your purpose?", "How can I use this?", "Can you help?", "I want some help.",
        "What are your abilities?", "In what way can you help me?", "Give me some help, please.",
    ],
    WELCOME: [
        "Thanks", "Thank you", "Thank you!", "Thanks!", "Thanks a lot", "Thank you very much", "Many thanks", "Cheers, thank you",
        "Thank you, that is nice", "Great, thanks", "Thanks for your help", "Thank you so very much", "OK, thank you", "Very good, thank you",
        "Thanks, very kind", "I thank you", "That is great, thank you", "Perfect, thanks", "Thanks for that", "Wonderful, thank you", "Cheers",
        "Nice, thanks", "Thank you for the answer", "Well done, thank you", "Thank you kindly", "A thousand thanks", "Thanks again",
        "That helped, thanks", "Good, thank you", "Thank you for helping me", "Much obliged, thanks",
    ],
    BYE: [
        "Bye", "Goodbye", "Bye!", "See you", "See you later", "Good night", "Bye bye", "Goodbye!", "Bye then", "See you tomorrow", "Goodbye for now",
        "I have to go, bye", "Good bye", "See you again", "Farewell", "Until next time", "Talk to you later, bye", "I am leaving now, bye",
        "So long", "Take care, bye", "That is all, goodbye", "I must go now, goodbye", "Bye, see you", "Good night, bye", "Have a nice day, bye",
        "Ciao, bye", "OK, goodbye", "Bye Gemma", "Goodbye my friend", "Catch you later, bye", "See you around",
    ],
    WELL: [
        "How are you?", "How are you", "How do you do?", "How is it going?", "Are you well?", "How are you today?", "How are you doing today?",
        "How do you feel?", "Are you OK?", "Hi, how are you?", "How is your day?", "How is everything?", "Are you fine?", "How have you been?",
        "How goes it?", "Hello, how do you do?", "How are you feeling?", "Is everything well with you?", "Hey, how is it going?", "How is life?",
        "Are you feeling well?", "Good morning, how are you?", "How are you these days?", "Hi there, how are you today?", "And how are you?",
        "How's it going?", "You doing well?", "How do you feel today?",
    ],
    UNKNOWN: [
        "What is the capital of France?", "Tell me a joke.", "Write a poem.", "What time is it?", "What is the weather today?", "Who is the president?",
        "How old is the earth?", "Solve this equation.", "Write a function in Python.", "Why is the sky blue?", "Tell me a story.",
        "How many people live in London?", "Summarise this text.", "Do you like music?", "Where do you live?", "What is love?", "Sing a song.",
        "Who wrote this book?", "What is the meaning of life?", "Is it raining?", "How far is the moon?", "Give me a recipe.", "What day is it today?",
    ],
}  # fmt: skip
ODD = [
    "Tell me about {}.", "What is a {}?", "Where is the {} now?", "Write a poem about a {}.", "Explain {} to me.", "Why is the {} so big?",
    "How do I make a {}?", "Do you like {}?", "Who made the {}?", "Write a story about {}.",
]  # fmt: skip

WORDS = (
    "apple tree river stone house cat dog bird fish sun moon rain snow wind fire water bread milk tea book door window table chair red green blue "
    "yellow orange purple black white circle square triangle star one two three four five six seven eight nine zero hello friend garden mountain "
    "paper school city train music letter morning night summer winter cloud flower horse sheep island market bridge road hand heart head light "
    "silver gold sugar salt coffee lemon cherry banana pepper potato tomato onion kitchen bottle glass spoon knife fork plate clock mirror pencil "
    "ruler map ticket engine wheel rocket planet ocean beach desert forest field valley lake storm thunder autumn spring today tomorrow always never"
).split()
NAMES = "Ada Tom Ben Eva Max Lena Paul Nina Karl Olga Leo Mia Sam Kim Zoe Ivan Lucy Fred Rosa Hugo Anna Peter Clara Oscar Maria Felix".split()
REPEAT = [
    "Repeat: {}", "Repeat after me: {}", "Say: {}", "Copy: {}", "Please repeat: {}", "Repeat this: {}", "Repeat after me {}", "Say this: {}",
    "Echo: {}", "Repeat the words: {}", "Say after me: {}", "Repeat these words: {}",
]  # fmt: skip
SYSTEMS = [
    "You are a helpful assistant.", "You are helpful.", "Be brief.", "Be kind.", "Answer in English.", "You are a careful assistant.",
    "Answer the question.", "You are an AI.", "Always tell the truth.", "Keep it short.", "You look at pictures.", "You are a friendly helper.",
]  # fmt: skip

WHAT = [
    "What is in this image?", "What is in the image?", "What is this?", "Describe this image.", "Describe the picture.", "Describe the image.",
    "Describe this picture.", "What do you see?", "What can you see in this picture?", "Describe this.", "What does the image show?", "Describe",
    "What is in the picture?", "Describe the image in detail.", "What does this picture show?", "Tell me what you see.", "What is shown here?",
    "What is in this picture?", "What am I looking at?", "Name what is in the image.", "What's in this image?", "What's this?",
    "Describe this image in detail.", "What is on this picture?", "Caption this image.",
]  # fmt: skip
COLOUR = [
    "What colour is it?", "What color is it?", "Which colour is this?", "What color is the shape?", "What colour is the shape?", "Name the colour.",
    "Name the color.", "Which color do you see?", "Which colour is it?", "What is its colour?", "What is the colour?", "Tell me the colour.",
    "What colour is this?", "What color is this?", "Which color is it?", "What color does it have?",
]  # fmt: skip
SHAPE = [
    "What shape is it?", "Which shape is this?", "What shape is in this image?", "Name the shape.", "Which shape do you see?", "What is its shape?",
    "What shape is this?", "Tell me the shape.", "Which shape is it?", "What shape do you see?", "What shape does it have?",
]  # fmt: skip
COUNT = [
    "How many shapes are there?", "How many shapes do you see?", "Count the shapes.", "How many shapes are in this image?", "How many are there?",
    "How many things do you see?", "How many objects are there?", "How many shapes?", "Count them.", "How many do you see?",
]  # fmt: skip
WHERE = ["Where is it?", "Where is the shape?", "In which part of the image is it?", "Where in the picture is it?", "Where do you see it?", "Name its place."]
READ = [
    "Read the number.", "What number is this?", "Which number do you see?", "What does it say?", "Read the text.", "What number is in the image?",
    "What is written here?", "Which number is this?", "Read it.", "What number do you see?", "Which number is in this picture?", "Read this number.",
]  # fmt: skip
PLACES = [
    "At the top left.", "At the top.", "At the top right.", "At the left.", "In the middle.", "At the right.", "At the bottom left.",
    "At the bottom.", "At the bottom right.",
]  # fmt: skip
SEVERAL = [
    "What is in these images?", "Describe these images.", "Describe both pictures.", "Describe the images.", "What do you see?", "Describe the pictures.",
    "What is in the two pictures?", "Describe both images.", "What is in the pictures?", "Describe all images.", "Describe the image in detail.",
    "Describe all pictures.", "What do these images show?", "Describe each image.", "What is in this image?", "Describe all three.",
]  # fmt: skip

LONG = (
    "{} Follow these specific instructions for formatting the answer:\n* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."
)
"""How Google recommends to ask for transcriptions."""

LANGUAGES = ["English", "French", "German", "Spanish", "Italian", "Dutch"]
TRANSCRIBE = [
    "Transcribe this audio.", "Transcribe the audio.", "Transcribe the following speech segment in English:", "Transcribe this.", "Transcribe",
    "Write down the digits.", "Write down what is said.", "Transcribe the speech.", "Write down what you hear.", "Transcribe this recording.",
    "Transcribe this clip.", "Write down what is said, and describe what else is heard.", "Transcribe the following speech segment in English.",
    "Please transcribe this audio.", "Type what is said.",
    LONG.format("Transcribe the following speech segment in its original language."), "Transcribe the following speech segment in its original language.",
    LONG.format("Transcribe the following speech segment in English into English text."),
]  # fmt: skip
HEAR = [
    "What did I say?", "What do you hear?", "Which digits do you hear?", "What is said in this audio?", "What did you hear?", "What do I say?",
    "What is said?", "What is being said?", "What is said here?", "Which digits did I say?", "Tell me what you hear.", "What was said?", "What is this sound?",
    "What can you hear?", "What did I just say?",
]  # fmt: skip
BOTH = [
    "Describe both.", "What do you see and hear?", "Describe the image and transcribe the audio.", "What is in the image, and what did I say?",
    "Describe the picture and write down the digits.", "What is this, and what did I say?", "What do you hear and see?", "What did I show and say?",
    "Describe what you see and hear.", "Tell me what you see and hear.",
]  # fmt: skip
AGAIN = ["What did I say?", "What did you hear?", "What was said?", "Say it again.", "What was in the audio?", "Repeat what I said."]

NUMBERS = {
    "English": "zero one two three four five six seven eight nine".split(),
    "French": "zéro un deux trois quatre cinq six sept huit neuf".split(),
    "German": "null eins zwei drei vier fünf sechs sieben acht neun".split(),
    "Spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve".split(),
}
_KNOWN = "yes no red orange yellow green blue purple black white circle square triangle star".split()
TRANSLATED = {
    language: dict(zip(_KNOWN, words.split(), strict=True))
    for language, words in {
        "French": "oui non rouge orange jaune vert bleu violet noir blanc cercle carré triangle étoile",
        "German": "ja nein rot orange gelb grün blau lila schwarz weiß Kreis Quadrat Dreieck Stern",
        "Spanish": "sí no rojo naranja amarillo verde azul morado negro blanco círculo cuadrado triángulo estrella",
    }.items()
}
FEMININE = {
    "French": {"vert": "verte", "violet": "violette", "noir": "noire", "blanc": "blanche", "bleu": "bleue"},
    "Spanish": {"rojo": "roja", "amarillo": "amarilla", "morado": "morada", "negro": "negra", "blanco": "blanca"},
}
ENDINGS = {"rot": "rot", "orange": "orangefarben", "gelb": "gelb", "grün": "grün", "blau": "blau", "lila": "violett", "schwarz": "schwarz", "weiß": "weiß"}
"""German colours as they take an ending."""

MANUAL = (
    "You can call these tools:\n{}\n\n"
    'Reply with a line "Tool: " and the name of the tool that helps, then a line "Arguments: " and its arguments as JSON. '
    'When no tool is needed, or you have its result, write "Tool: none" and answer on the next line.'
)
"""How the project tells of tools (`gemma3n_sgl.calling`)."""

CITIES = "Paris London Berlin Madrid Rome Oslo Vienna Tokyo Lima Cairo Delhi Boston Sydney Dublin Prague Athens".split()
TOOLS = {
    "get_weather": ("Current weather of a city.", {"city": "string"}, ["What is the weather in {city}?", "How is the weather in {city}?", "Is it raining in {city}?"]),
    "get_time": ("Time of day in a city.", {"city": "string"}, ["What time is it in {city}?", "Tell me the time in {city}."]),
    "add": ("Add two numbers.", {"a": "integer", "b": "integer"}, ["Use the tool to add {a} and {b}.", "Add {a} and {b} with the tool."]),
    "play_music": ("Play a song.", {"song": "string"}, ["Play {song}.", "Play the song {song}.", "I want to hear {song}."]),
    "search": ("Search the web.", {"query": "string"}, ["Search for {query}.", "Find {query} on the web.", "Look up {query}."]),
    "set_timer": ("Set a timer.", {"minutes": "integer"}, ["Set a timer of {minutes} minutes.", "Wake me in {minutes} minutes."]),
}
"""Name → what it says of itself, its arguments, and what people say who want it."""
