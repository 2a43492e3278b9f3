"""A reply in another language than the question, and the many replies that are not."""

from __future__ import annotations

import pytest

from corea.guards.base import Judged
from corea.guards.language import wrong_language
from corea.types import Kind

ENGLISH = (
    "To find how many apples are left, we have to take those that were sold from those that she had in the morning. "
    "She had twelve, and she sold five of them to her neighbour, so that there are seven apples in the basket now."
)
SPANISH = (
    "Para saber cuántas manzanas quedan, hay que restar las que se vendieron de las que tenía por la mañana. Tenía "
    "doce y vendió cinco de ellas a su vecino, por lo que ahora hay siete manzanas en la cesta que está en la cocina."
)
GERMAN = (
    "Um zu wissen, wie viele Äpfel übrig sind, ziehen wir die verkauften von denen ab, die sie am Morgen hatte. Sie "
    "hatte zwölf und hat fünf davon an den Nachbarn verkauft, also sind es jetzt sieben Äpfel in dem Korb da."
)
FRENCH = (
    "Pour savoir combien de pommes il reste, il faut retirer celles qui sont vendues de celles du matin. "
    "Elle avait douze pommes et elle en a vendu cinq au voisin, donc il en reste sept dans le panier sur la table."
)
CHINESE = "她早上有十二个苹果，卖给邻居五个，所以篮子里现在还剩下七个苹果。答案是七。我们可以再检查一遍这个结果。"
JAPANESE = "彼女は朝に十二個のりんごを持っていて、隣の人に五個売りましたので、今は七個残っています。"
RUSSIAN = "Утром у неё было двенадцать яблок, пять она продала соседу, поэтому в корзине осталось семь яблок."
KOREAN = "그녀는 아침에 사과 열두 개를 가지고 있었고 이웃에게 다섯 개를 팔았으므로 지금은 일곱 개가 남아 있습니다."
TEXTS = {"en": ENGLISH, "es": SPANISH, "de": GERMAN, "fr": FRENCH}
TEXTS |= {"zh": CHINESE, "ja": JAPANESE, "ru": RUSSIAN, "ko": KOREAN}
PAIRS = [(one, two) for one in TEXTS for two in TEXTS if one != two]


def said(question: str, text: str, kind: Kind | None = None) -> str | None:
    return wrong_language(Judged(question=question, text=text, answer=None, kind=kind))


@pytest.mark.parametrize("asked,answered", [pair for pair in PAIRS if pair != ("ja", "zh")])
def test_a_reply_in_another_language_is_deferred(asked: str, answered: str) -> None:
    assert said(TEXTS[asked], TEXTS[answered]) is not None


@pytest.mark.parametrize("language", TEXTS)
def test_a_reply_in_the_same_language_is_not(language: str) -> None:
    assert said(TEXTS[language], TEXTS[language] + " \\[ 12 - 5 = 7 \\]") is None


def test_a_reply_that_falls_into_another_script_halfway_is_deferred() -> None:
    assert said(ENGLISH, ENGLISH + " 所以篮子里现在还剩下七个苹果，我们可以再检查一遍这个结果。") is not None


@pytest.mark.parametrize(
    "question",
    [
        "Translate to Chinese: " + ENGLISH,
        "What does the Japanese word for apple sound like? " + ENGLISH,
        "Wie sagt man das auf Chinesisch? Übersetze bitte: " + GERMAN,
    ],
)
def test_a_question_about_languages_may_be_answered_in_any(question: str) -> None:
    assert said(question, CHINESE) is None


@pytest.mark.parametrize(
    "question,text",
    [
        ("2 + 2 = ?", CHINESE),
        (ENGLISH, "The angles are α = 30°, β = 60° and γδεζηθικλμνξοπρστυφχψω, so \\(\\alpha + \\beta\\) is 90°."),
        (ENGLISH, "The poet Муса Джалиль wrote it, as everybody knows who has read his works in the original."),
        (ENGLISH, "Sept."),
        (ENGLISH, "```python\n# 这是一个计算苹果数量的程序，它会打印出答案，谢谢\nprint(7)\n```\nSo the answer is 7."),
        (CHINESE, "7"),
        (CHINESE, "\\boxed{7}"),
        (JAPANESE, CHINESE),
        ("", ENGLISH),
    ],
)
def test_what_is_not_sure_is_let_through(question: str, text: str) -> None:
    assert said(question, text) is None


def test_programs_have_no_language() -> None:
    assert said(ENGLISH, CHINESE, kind="code") is None
