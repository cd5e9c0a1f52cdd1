"""This file knows plausible things to say about anything, in English and in Chinese."""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_RUN = re.compile(r"[\u3400-\u9fff]{2,6}")
# Between these a Chinese text has its nouns, more or less.
_BETWEEN = re.compile(
    "的|了|吗|呢|是|在|和|与|及|或|把|被|对|请|您|你|我|他|她|它|这|那|有|到|从|为|让|会|能|要|用|给"
    "|如何|怎么|怎样|什么|多少|哪些|解释|一下|可以|需要|应该|如果|因为|所以|以及|比较|介绍|写"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{3,}")
_DULL: Final = frozenset(
    re.findall(
        r"\w+",
        """about above after again also always another answer anything because been before being
below between both call came come could does doing down during each either else even every
explain find from give given have having help here hers into itself just keep kind know
like list long made make many more most much must need never only other over own please
question same shall should show since some such sure take tell than that their them then
there these they thing this those through tool under until upon used user using very want
well were what when where which while whom whose will with within without would write your
yours""",
    )
)
_ENGLISH: Final = (
    "The short answer on {a} is that it depends on {b}, and the order of the steps matters.",
    "Start with {a}: write down what is known, and mark what is only assumed.",
    "A first look at {a} shows three parts, of which {b} is the one that costs most.",
    "If {a} changes, {b} has to be checked again before anything else is decided.",
    "Two things are often mixed up here, {a} and {b}; keeping them apart makes the rest easy.",
    "For most teams the simplest plan for {a} is also the one that lasts.",
    "Measure {a} once before the change and once after it, under the same load.",
    "The risk lies less in {a} than in what surrounds it.",
    "Where {b} is small, {a} can be left as it is for now.",
    "It helps to name one person who owns {a} and one date by which it is reviewed.",
    "A table with one row for each case of {a} would make the gaps visible.",
    "There are exceptions: when {b} comes first, {a} follows from it almost for free.",
    "In practice {a} takes about twice the time that people expect.",
    "Do the part that can be undone first, and leave {b} for the end.",
    "Compared with last year, {a} has become cheaper and {b} has not.",
    "That is why I would treat {a} as a limit and {b} as a goal.",
    "One caution: numbers about {a} age quickly, so note where each of them comes from.",
    "In sum, {a} deserves a small trial, and {b} a clear rule.",
)
_ENGLISH_THOUGHTS: Final = (
    "The question is about {a}, so I should first see what is really asked.",
    "There is also {b}, which may or may not matter here.",
    "Let me think about {a} step by step.",
    "If {b} holds, then {a} is the simple case; otherwise I need one more step.",
    "I should check that against the words of the request: it says {a}.",
    "A list might be clearer, but a few sentences on {a} will do.",
    "So the answer should begin with {a} and end with {b}.",
)
_CHINESE_SAID: Final = (
    "关于{a},可以先把已知的条件列清楚,再看{b}会带来什么影响。",
    "简单来说,{a}的关键在于顺序:先做能撤回的一步,再做不能撤回的一步。",
    "如果{b}发生变化,{a}也要重新核对一遍。",
    "很多人把{a}和{b}混为一谈,分开来看反而更容易。",
    "建议先做一次小规模的试验,记录结果,然后再决定{a}的做法。",
    "从成本上看,{a}占的比例最大,所以值得优先处理。",
    "需要提醒的是,和{a}有关的数字变化很快,请注明来源和日期。",
    "对于大多数团队,最简单的方案往往也最持久。",
    "在{b}不大的情况下,{a}可以暂时保持不变。",
    "最好指定一个人负责{a},并约定复查的时间。",
    "与去年相比,{a}便宜了不少,而{b}基本没有变。",
    "总的来说,{a}适合先试一试,{b}则需要一条清楚的规则。",
)
_CHINESE_THOUGHTS: Final = (
    "用户问的是{a},我先弄清楚真正的问题是什么。",
    "这里还提到{b},不一定重要,但要考虑到。",
    "一步一步来想:先看{a},再看{b}。",
    "如果{b}成立,{a}就是简单的情况。",
    "回答应该从{a}开始,最后落到{b}。",
)


def is_chinese(text: str) -> bool:
    """Whether an answer to this text should be in Chinese."""
    return 5 * len(_CHINESE.findall(text)) > len(text)


def topics(text: str) -> list[str]:
    """What a text is about: its longer words, each once, in order."""
    if is_chinese(text):
        found = _RUN.findall(_BETWEEN.sub(" ", text[:4000]))
        return list(dict.fromkeys(found)) or ["这个问题"]
    words = (word for word in _WORD.findall(text[:4000]) if word.lower() not in _DULL)
    return list(dict.fromkeys(words)) or ["this"]


def speak(question: str, chance: random.Random) -> Iterator[str]:
    """Say one sentence after another about a question, without end."""
    pool = _CHINESE_SAID if is_chinese(question) else _ENGLISH
    return _sentences(pool, question, chance)


def think(question: str, chance: random.Random) -> Iterator[str]:
    """Think one sentence after another about a question, without end."""
    pool = _CHINESE_THOUGHTS if is_chinese(question) else _ENGLISH_THOUGHTS
    return _sentences(pool, question, chance)


def _sentences(pool: Sequence[str], question: str, chance: random.Random) -> Iterator[str]:
    """Fill the sentences of a pool with topics, in a shuffled order, again and again."""
    gap = "" if is_chinese(question) else " "
    subjects = topics(question)
    order = list(pool)
    before = ""
    while True:
        chance.shuffle(order)
        for sentence in order:
            i = chance.randrange(len(subjects))
            other = subjects[(i + 1) % len(subjects)]
            yield before + sentence.format(a=subjects[i], b=other)
            before = gap
