"""A reply in another language than the question: by its script, and between languages of Latin script by small words.

Needs a lot of text to be sure, and lets through what it is not sure of. A question that speaks of languages may be
answered in any of them. Mathematics and programs have no language; Greek letters are mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from corea.guards.base import Judged, prose

#: So many letters make a script the question's, and this share of them.
_MIN_LETTERS, _SHARE = 8, 0.7
#: Letters of a script that the question has none of, and their share in the reply.
_FOREIGN_LETTERS, _FOREIGN_SHARE = 20, 0.1
#: Words to know a language of Latin script by; the share of small words that makes it one; how many times the other's.
_MIN_WORDS, _SMALL_SHARE, _LEAD = 30, 0.15, 2.5
_MIN_QUESTION_WORDS = 8
_LATEX = re.compile(
    r"\\\[.{0,400}?\\\]|\\\(.{0,200}?\\\)|\$\$.{0,400}?\$\$|\$[^$\n]{1,200}\$|\\[a-zA-Z]+|https?://\S+|`[^`\n]*`",
    re.DOTALL,
)
_SPEAKS_OF_LANGUAGE = re.compile(
    r"\b(?:translat\w*|languages?|spell\w*|pronounc\w*|vocabulary|transliterat\w*|romaniz\w*|etymolog\w*|"
    r"übersetz\w*|traduc\w*|tradui\w*|traduz\w*|"
    r"english|spanish|french|german|italian|portuguese|dutch|russian|ukrainian|greek|latin|arabic|hebrew|hindi|"
    r"chinese|mandarin|cantonese|japanese|korean|thai|vietnamese|turkish|polish|kanji|cyrillic)\b|翻译|翻訳|перев[ео]д|번역",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\W\d_]+")
#: What stands most often in a text of the language and in few others.
_SMALL_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "English": "the of and to is that in it for was with are this which you be have from we will has so",
        "Spanish": "el los las del que una por con para es su como más pero se un lo al está son",
        "French": "le les des une du est que dans pour qui sur avec pas au ce nous il elle sont donc",
        "German": "der die das und ist nicht ein eine den mit von zu auf für sich wir dem es wird sind",
        "Italian": "il gli della che di una per con sono non è più nel dei alla questo si le ha quindi",
        "Portuguese": "o os da do que uma em para com não é mais dos no na por um as são temos",
        "Dutch": "de het een van en dat niet is zijn op te voor met er aan wordt deze we dus om",
    }.items()
}
_SCRIPTS = {"HIRAGANA": "Japanese", "KATAKANA": "Japanese", "CJK": "Chinese", "HANGUL": "Korean"}
_IGNORED = frozenset({"GREEK", "MICRO", "FEMININE", "MASCULINE", "MATHEMATICAL", "MODIFIER", "SCRIPT", "DOUBLE-STRUCK"})


def wrong_language(judged: Judged) -> str | None:
    """Why the reply seems to be in another language than the question."""
    if judged.kind == "code" or _SPEAKS_OF_LANGUAGE.search(judged.question):
        return None
    text = _LATEX.sub(" ", prose(judged.text))
    return _other_script(_letters(judged.question), _letters(text)) or _other_language(judged.question, text)


def _other_script(asked: Counter[str], said: Counter[str]) -> str | None:
    total = sum(asked.values())
    if total < _MIN_LETTERS or max(asked.values()) < _SHARE * total:
        return None
    for script, count in said.most_common():
        if count < max(_FOREIGN_LETTERS, _FOREIGN_SHARE * sum(said.values())):
            return None
        # A short Japanese answer may have no kana, and any script may hold Latin names.
        if script not in asked and not (script == "Chinese" and "Japanese" in asked) and script != "LATIN":
            return f"{count} of its letters are {script.capitalize()}, and the question has none of them"
        if script == "LATIN" and script not in asked and count >= _SHARE * sum(said.values()):
            return "it is written in Latin letters, and the question is not"
    return None


def _other_language(question: str, text: str) -> str | None:
    asked, said = _shares(question, _MIN_QUESTION_WORDS), _shares(text, _MIN_WORDS)
    if asked is None or said is None:
        return None
    one, two = max(asked, key=asked.__getitem__), max(said, key=said.__getitem__)
    # Only these two are held against one another: Spanish is known from English, if not from Portuguese.
    clear = asked[one] >= max(_SMALL_SHARE, _LEAD * asked[two]) and said[two] >= max(_SMALL_SHARE, _LEAD * said[one])
    return f"it is {two}, and the question {one}" if one != two and clear else None


def _shares(text: str, min_words: int) -> dict[str, float] | None:
    """The share of each language's small words; None where there are too few words."""
    words = [word.lower() for word in _WORDS.findall(text)]
    if len(words) < min_words:
        return None
    return {name: sum(word in small for word in words) / len(words) for name, small in _SMALL_WORDS.items()}


def _letters(text: str) -> Counter[str]:
    """Letters by script."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha() and (script := _script(character)) is not None:
            counts[script] += count
    if "Japanese" in counts:
        # It is written with Chinese characters as well.
        counts["Japanese"] += counts.pop("Chinese", 0)
    return counts


@lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    if character.isascii():
        return "LATIN"
    first = unicodedata.name(character, "").split(" ", 1)[0]
    return None if not first or first in _IGNORED else _SCRIPTS.get(first, first)
