"""Words as the Penn Treebank has them: what Stanford's PTBTokenizer 3.4.1 makes of captions, in lower case and without
punctuation, as the official evaluation of captions asks of it (Chen et al., 2015)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# What keeps its full stop: always, with a capital, and before a number.
ABBREVIATIONS = """
    adj adm adv asst bldg brig bros capt cmdr col comdr cpl dr drs ens gen gov hon insp lt maj messrs mlle mme
    mr mrs ms msgr pfc ph prof pvt rep reps rev rt sen sens sfc sgt sr jr st supt spc ala ariz calif colo conn
    dak fla ga ind kans kan ky md mich minn mo mont neb nev okla penn tenn va vt wisc wis wyo inc cos co corp
    ltd plc pty pte bancorp assn etc al seq ave blvd rd mt ft est vs alex wm jos cie fri thu mon tue wed jan feb mar apr
    jun jul aug sep sept oct nov dec thurs tues dept univ tel ext cf pres treas esq sq mfg intl natl ct
"""
CAPITALS = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"
BEFORE_NUMBERS = "art ca fig figs no nos op pp"
LETTER = r"[^\W\d_]"
TOKEN = re.compile(
    rf"""
    https?://[^\s<>"]+[^\s<>".,;:!?)'\]] | [\w.+-]+@\w+(?:[.-]\w+)+ | [@\#](?!\d)\w+ | </?[a-z][^<>\s]*>
  | can(?=not\b) | gon(?=na\b) | got(?=ta\b) | wan(?=na\b) | lem(?=me\b) | gim(?=me\b)
  | ['’]t(?=(?:is|was)\b) | y['’](?=\w)
  | {LETTER}+?(?=n['’]t\b) | n['’]t\b
  | (?<=\w)['’](?:s|m|d|ll|ve|re)\b
  | o['’]clock\b | ma['’]am\b | ['’](?:em|n['’]?|\d\ds?)(?!\w) | [dlj]['’]{LETTER}{{2,}}
  | (?:{LETTER}\.)+{LETTER}(?!\w)\.? | (?:{"|".join(ABBREVIATIONS.split())})\.(?!\w)
  | (?-i:{"|".join(CAPITALS.split())})\.(?!\w) | (?:{"|".join(BEFORE_NUMBERS.split())})\.(?=\s*\d)
  | \b{LETTER}\.(?=\s+(?-i:[a-z\d]))
  | {LETTER}+(?:\.{LETTER}+)+(?:/[\w-]+)*
  | \w+(?:[-/]\w+)+ | [-+]?\d+(?:[.,:]\d+)+ | [-+.]\d+
  | \w+ | [?!]+ | \.\.+ | --+ | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
WRITTEN = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
WRITTEN |= {"£": "#", "€": "$", "½": "1/2"}
SILENT = frozenset(". ? ! , : ; - -- ' \" ` ‘ ’ “ ” – — …".split())


def words(captions: Sequence[str]) -> list[list[str]]:
    """The words of each of several captions. They are read in a row, as officially: whether a letter's full stop
    belongs to it depends on what follows, in the next caption, too."""
    told: list[list[str]] = []
    after = ""
    for caption in reversed(captions):
        found: list[tuple[str, ...]] = []
        for chunk in reversed(caption.split()):
            found.append(_words(chunk, after if chunk[-1] == "." else ""))
            after = chunk[0]
        told.append([word for some in reversed(found) for word in some])
    return told[::-1]


@lru_cache(2**17)
def _words(chunk: str, after: str) -> tuple[str, ...]:
    """Of what stands between spaces, and the sign that comes next; most of it comes again and again"""
    found = TOKEN.findall(f"{chunk} {after}")[: -1 if after else None]
    return tuple(WRITTEN.get(one) or one.lower() for one in found if one not in SILENT and one[:2] not in ("..", "--"))
