# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixed chat prompts of every measurement.

Kinds of text differ in how well a draft predicts them: code well, prose less. Each prompt asks for far more text than is generated,
so an answer does not end by itself.
"""

from __future__ import annotations

SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "code": (
        "Write a complete Python module that implements {}, type hints, docstrings and unit tests for every method.",
        (
            "an LRU cache with expiry: a class with get, put, delete, statistics and a background cleaner",
            "a job queue on SQLite: a class with add, claim, finish, retry with back-off and a worker",
            "a parser of INI files: a class with read, write, sections, interpolation and error positions",
            "a rate limiter: a class with token buckets, a sliding window, waiting and a registry of clients",
            "a text search index: a class with add, remove, query, ranking and snippets",
            "a bank ledger: a class with accounts, transfers, balances, statements and an audit log",
            "a state machine: a class with states, transitions, guards, timers and a drawing of itself",
            "a matrix of fractions: a class with addition, product, inverse, determinant and rank",
        ),
    ),
    "prose": (
        "Tell the story of {}, in at least ten paragraphs, with dialogue and descriptions of the weather, the sea and the town.",
        (
            "a lighthouse keeper who finds a letter in a bottle",
            "a harbour pilot who has to bring in a ship without a crew",
            "a baker who hears that the last ferry will not come back",
            "a girl who repairs the clock of the customs house",
            "two brothers who inherit one fishing boat",
            "a doctor who is called to the island during a storm",
            "a painter who returns after thirty years",
            "a teacher who finds a map in the school's piano",
        ),
    ),
    "structured": (
        "List {} as a JSON array. Each entry is an object with the keys {}.",
        (
            "the chemical elements from hydrogen to zinc|number, symbol, name, mass, group, period, category and year_discovered",
            "the countries of Europe|name, capital, population, area, currency, languages, calling_code and joined_un",
            "the planets and large moons of the solar system|name, parent, radius, mass, distance, period, discovered and notes",
            "forty HTTP status codes|code, name, class, meaning, cacheable, since, example and client_action",
            "the kings and queens of England since 1066|name, house, born, crowned, ended, predecessor, successor and notes",
            "thirty SQL statements|name, purpose, syntax, example, standard_since, changes_data, locks and see_also",
            "the bones of the human body|name, latin, region, count, type, articulates_with, function and notes",
            "forty musical instruments|name, family, range, clef, transposes, material, origin and famous_piece",
        ),
    ),
    "chinese": (
        "请用中文详细介绍{}，分成多个小节，每一节不少于两段。",
        (
            "杭州西湖的历史、十景、传说、四季景色和附近的美食",
            "北京故宫的历史、布局、建筑、收藏和参观路线",
            "四川菜的历史、味型、名菜、调料和烹饪方法",
            "中国茶的历史、种类、产地、制作和冲泡方法",
            "长江的源头、流域、三峡、城市和生态保护",
            "中国书法的历史、五种书体、名家、工具和练习方法",
            "敦煌莫高窟的历史、洞窟、壁画、藏经洞和保护",
            "春节的来历、习俗、食物、地方差异和现代变化",
        ),
    ),
}
KINDS: tuple[str, ...] = tuple(SUBJECTS)


def prompt_of(kind: str, number: int) -> str:
    """The fixed prompt 0, 1, … of one kind. After the last subject, the subjects return with a mark.

    No text comes twice: greedy decoding of the same prompt repeats the same drafts, and counting them
    again would make the sample look larger than it is.
    """
    form, subjects = SUBJECTS[kind]
    lap, index = divmod(number, len(subjects))
    text = form.format(*subjects[index].split("|"))
    return text if not lap else f"{text} ({lap + 1})"


def prompt(number: int) -> str:
    """The fixed prompt 0, 1, … of all kinds in turn, so that each round holds every kind."""
    lap, index = divmod(number, len(KINDS))
    return prompt_of(KINDS[index], lap)
