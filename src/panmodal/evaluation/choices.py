"""How the option that an answer means is found, each as its benchmark's official evaluation does; None where it cannot
be told. Where an official evaluation then tosses a coin, nothing here does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

LETTERS = "ABCDEFGHIJ"
KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (  # with commas between thousands, with an exponent, plain
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)


def scienceqa_choice(answer: str) -> str | None:
    """LLaVA's rule: a letter alone, one before the first ". ", or that in "The answer is X"."""
    answer = answer.replace("\n", ". ")
    if answer.strip() in tuple("ABCDE"):
        return answer.strip()
    told = re.match(r"([A-E])\. ", answer) or re.search(r"The answer is ([A-E])\.", answer)
    told = told or re.search(r"The answer is ([A-E])", answer)
    return told[1] if told else None


def mmbench_choice(answer: str, options: Mapping[str, str]) -> str | None:
    """MMBench's rule before its language model: the only option's letter there is, among the last four words; or after
    "answer is"; or the only option whose text is in the answer."""
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", answer).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    told = re.search(r"answer is \(?([A-Z])\b", answer)
    if told and told[1] in options:
        return told[1]
    said = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return said[0] if len(said) == 1 else None


def mmmu_choice(answer: str, letters: Sequence[str], options: Mapping[str, str]) -> str | None:
    """MMMU's rule: the last letter in brackets, else between spaces, else the option whose text comes last, in an
    answer of more than five words."""
    for sign in ",.!?;:'":
        answer = answer.strip(sign)
    answer = f" {answer} "
    for form in ("({})", " {} "):
        if told := _last(answer, {letter: form.format(letter) for letter in letters}):
            return told
    return _last(answer.lower(), {k: v.lower() for k, v in options.items()}) if len(answer.split()) > 5 else None


def mmmu_open(answer: str, expected: str | Sequence[str]) -> bool:
    """MMMU's rule for answers without options: what follows words as "is" or "=" contains the expected text, or has a
    number that is equal to two decimals."""
    true = [form for one in ([expected] if isinstance(expected, str) else expected) for form in _forms(one)]
    texts = _key_texts(answer)
    said = [form for text in (*texts, *(n for text in texts for n in _numbers(text))) for form in _forms(text)]
    return any(
        one in true if isinstance(one, float) else any(isinstance(t, str) and t in one for t in true) for one in said
    )


def mathvista_answer(answer: str, choices: Sequence[str], form: str, precision: float | None) -> str | None:
    """MathVista's rule: of options the text, by its letter in brackets or alone, or as it stands; else the number, of
    what says several none, as integer or to `precision` digits; else a list as it stands."""
    answer = answer.strip()
    quoted = re.search(r'The answer is "(.*)"\.', answer)
    answer = quoted[1] if quoted else answer
    if choices:
        letter = re.search(r"\(([A-Za-z])\)", answer)
        told = dict(zip(LETTERS, choices, strict=False)).get(letter[1].upper() if letter else answer.rstrip("."))
        return told or next((choice for choice in choices if choice.lower() == answer.rstrip(".").lower()), None)
    if form == "list":
        return answer
    numbers = re.findall(r"-?\d+(?:\.\d+)?|-?\.\d+", answer.replace(",", ""))
    if len(numbers) != 1:
        return None
    number = float(numbers[0])
    if form == "integer":
        return str(int(number))
    return str(round(number, int(precision or 0))) if form == "float" else answer


def _last(text: str, signs: Mapping[str, str]) -> str | None:
    """The key whose sign stands last in a text"""
    places = {key: text.rfind(sign) for key, sign in signs.items() if sign in text}
    return max(places, key=places.__getitem__) if places else None


def _key_texts(answer: str) -> list[str]:
    """Of each line the shortest rest that follows one of `KEYS`, in the last line also "="; without any, the answer"""
    answer = answer.strip().strip(".").lower()
    lines = answer.split("\n")
    told = []
    for line in lines:
        shortest = ""
        for key in (*KEYS, "=") if line is lines[-1] else KEYS:
            rest = line.split(key)[-1].strip()
            if key in line and (not shortest or len(rest) < len(shortest)):
                shortest = rest
        if shortest and shortest not in tuple(":,.!?;'"):
            told.append(shortest)
    return told or [answer]


def _numbers(text: str) -> list[str]:
    return [number for pattern in NUMBERS for number in re.findall(pattern, text)]


def _forms(text: str) -> list[str | float]:
    """A number to two decimals, or text in lower case, of a single letter only beside a space"""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
