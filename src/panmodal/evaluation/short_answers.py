"""How short answers are compared, each as its benchmark's official evaluation does."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = {"none": "0"} | {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = ("a", "an", "the")
MARKS = ';/[]"{}()=+\\_-><@`,?!'
# Forms that annotators write without one of their apostrophes.
FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {form[:i] + form[i + 1 :]: form for form in FORMS.split() for i, sign in enumerate(form) if sign == "'"}
CONTRACTIONS["somebody'd"] = "somebodyd"  # as officially


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al., 2015; the official evaluation): the mean, over the annotators, of a third of the
    others' answers that match, at most 1. Answers are cleaned only if the annotators differ."""
    answer, answers = _line(answer), [_line(one) for one in answers]
    if len(set(answers)) > 1:
        answer, answers = _cleaned(answer), [_cleaned(one) for one in answers]
    return _agreement(answer, answers)


def textvqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """The same of answers that are always cleaned, as TextVQA's leaderboard and M4C (Hu et al., 2020) do."""
    return _agreement(_read(answer), [_read(one) for one in answers])


def exact(answer: str, expected: str) -> bool:
    """As GQA's answers are compared: in lower case, without the full stop at the end."""
    return answer.strip().rstrip(".").lower() == expected.strip().lower()


def relaxed(answer: str, expected: str, tolerance: float = 0.05) -> bool:
    """Relaxed accuracy (ChartQA, Masry et al., 2022): numbers may be 5 % off, other answers are equal but for case. A
    percentage is a number."""
    said, true = _number(answer), _number(expected)
    if said is not None and true:
        return abs(said - true) <= tolerance * abs(true)
    return answer.strip().lower() == expected.strip().lower()


def anls(answer: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity (Biten et al., 2019): that of the likest of the answers, in lower case;
    0 where it is below the threshold."""
    best = max(_likeness(" ".join(answer.lower().split()), " ".join(one.lower().split())) for one in answers)
    return best if best >= threshold else 0.0


def _agreement(answer: str, answers: Sequence[str]) -> float:
    same = [one == answer for one in answers]
    return sum(min(1.0, (sum(same) - one) / 3) for one in same) / len(same)


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _cleaned(text: str) -> str:
    """Without punctuation, articles and capitals, numbers as digits"""
    numeral = re.search(r"\d,\d", text)
    bare = text
    for mark in MARKS:  # what stands between words is deleted, what stands within one parts it
        apart = f"{mark} " in text or f" {mark}" in text or numeral
        bare = bare.replace(mark, "" if apart else " ")
    bare = re.sub(r"\.(?!\d)", "", bare)
    words = [NUMBERS.get(word, word) for word in bare.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _read(text: str) -> str:
    """As M4C reads answers, the possessive's s a word of its own"""
    return _cleaned(_line(text.lower().replace(",", "").replace("?", "").replace("'s", " 's")))


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _likeness(a: str, b: str) -> float:
    """1 less the Levenshtein distance as a share of the longer one's length"""
    before = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
        before = row
    return 1 - before[-1] / max(len(a), len(b), 1)
