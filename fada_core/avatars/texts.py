"""Random sentences from word lists and templates."""

import numpy as np

from ..errors import FadaError
from .words import FOREIGN

#: Language -> voice of espeak-ng.
LANGUAGES = {"en": "en-us", **{code: voice for code, (voice, _, _) in FOREIGN.items()}}
_WORDS: dict[str, tuple[str, ...]] = {
    "who": (
        "my neighbour", "the teacher", "a young painter", "our captain", "the baker", "her brother", "the old farmer",
        "every visitor", "a famous pilot", "the new mayor", "your cousin", "the tall woman", "a quiet student",
        "the whole family", "Maria", "Robert", "Ben", "Sophie", "Oliver", "Emma", "Paul", "Fiona",
    ),
    "did": (
        "bought", "found", "remembered", "painted", "borrowed", "moved", "opened", "wrapped", "forgot", "followed",
        "brought back", "watched", "built", "gave away", "photographed", "promised", "picked up", "measured",
    ),
    "what": (
        "a purple umbrella", "the broken window", "five warm blankets", "an empty bottle", "some apple pie",
        "the morning paper", "a big wooden boat", "the map of Europe", "two yellow bikes", "a pot of soup",
        "the missing book", "my favourite mug", "a bag of plums", "the blue envelope", "an old piano",
        "three small rabbits", "the garden gate", "a cup of coffee", "her summer jumper", "the weather report",
    ),
    "where": (
        "by the river", "in the kitchen", "behind the museum", "on the way home", "at the market", "near the bridge",
        "under the table", "in front of the bank", "beside the lighthouse", "in the middle of the park",
        "above the shop", "across the valley",
    ),
    "when": (
        "this morning", "last Monday", "before breakfast", "after the show", "in the evening", "at half past four",
        "every Friday", "in March", "a week ago", "during the storm", "yesterday",
    ),
    "how": (
        "wonderful", "a bit strange", "far too loud", "beautiful", "very simple", "almost impossible",
        "warm and bright", "more important than before", "perfectly fine", "quite funny", "smooth as glass",
    ),
    "thing": (
        "the music", "this idea", "the view from up here", "your voice", "the weather", "that movie", "the problem",
        "our plan", "the bread", "the first part", "the answer", "his big smile",
    ),
    "plan": (
        "move the sofa", "walk to the beach", "bake some bread", "practise the piano", "meet for lunch", "buy a map",
        "call my mother", "paint the fence", "wait for the bus", "learn a few words", "fix the lamp", "have a party",
    ),
    "name": ("Maria", "Robert", "Ben", "Sophie", "Oliver", "Emma", "Paul", "Fiona", "Bob", "Amy", "Mohammed", "Olga"),
    "place": ("Boston", "Paris", "Bombay", "Milan", "the village", "the harbour", "Vienna", "Panama", "the mountains"),
}  # fmt: skip
_TEMPLATES: tuple[str, ...] = (
    "{who} {did} {what} {where}.", "{when}, {who} {did} {what}.", "I think {thing} is {how}.",
    "why is {thing} {how}?", "we could {plan} {when}.", "please {plan}, and then {plan}.",
    "{who} wants to {plan} in {place}.", "{number}, {number}, {number}.", "there were {number} people {where}.",
    "do you know how far it is to {place}?", "well, {thing} was {how} {when}.", "{who} and {who} {did} {what}.",
    "hello, and welcome to {place}!", "no, {who} never {did} {what} {where}.", "oh, maybe you should {plan}.",
    "it costs {number} pounds, or {number} for both.", "first {plan}. after that, {plan}.",
    "{thing}? {how}, I would say.", "my name is {name}, and I live in {place}.",
)  # fmt: skip
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_words(value: int) -> str:
    """`value` (0..9999) in English words."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        return _TENS[value // 10 - 2] + (f" {_ONES[value % 10]}" if value % 10 else "")
    unit, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    rest = value % unit
    joint = " " if rest >= 100 else " and "
    return f"{number_words(value // unit)} {name}" + (f"{joint}{number_words(rest)}" if rest else "")


def sentence(rng: np.random.Generator, language: str = "en") -> str:
    """A random sentence, of some ten million in English and some ten thousand in each other language.

    Raises `FadaError` for a language without words.
    """
    if language not in LANGUAGES:
        raise FadaError(f"There are no words in '{language}': choose one of {', '.join(LANGUAGES)}.")
    if language == "en":
        templates, words = _TEMPLATES, _WORDS
    else:
        _, words, templates = FOREIGN[language]
    text = templates[rng.integers(len(templates))]
    while "{" in text:
        slot = text[text.index("{") + 1 : text.index("}")]
        if slot == "number":
            word = number_words(int(rng.integers((20, 100, 1000, 10000)[rng.integers(4)])))
        else:
            word = words[slot][rng.integers(len(words[slot]))]
        text = text.replace("{" + slot + "}", word, 1)
    return text[0].upper() + text[1:]
