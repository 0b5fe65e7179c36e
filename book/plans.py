"""How long the course takes: chapters, predictions and exercises counted from their sources, and plans added up.

The instructor's guide keeps its plans as data and has them checked and drawn here.
"""

import html
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jupytext
import yaml
from docutils.nodes import make_id

from normlab.exercises import EXERCISES
from normlab.misconceptions import GROUPS, MISCONCEPTIONS, of
from normlab.mistakes import MISTAKES

ROOT = Path(__file__).resolve().parent.parent
WORDS_A_MINUTE = 200
APART = ("Before and after", "Appendix")  # parts of _toc.yml that are no chapters
CODE = re.compile(r"^```\{code-cell\}.*?^```$", re.DOTALL | re.MULTILINE)
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Chapter:
    """One chapter as it stands in book/<stem>.md. `promised`: the minutes that its first lines speak of, or None."""

    stem: str
    part: str
    title: str
    words: int
    figures: int
    predictions: int
    promised: int | None
    exercises: tuple

    @property
    def prose(self):
        """Minutes to read the words alone, without figures, code and thinking."""
        return math.ceil(self.words / WORDS_A_MINUTE)

    @property
    def reading(self):
        """Minutes that a plan allows: what the page promises, or its words if they take longer."""
        return max(self.prose, self.promised or 0)


@dataclass(frozen=True)
class Session:
    """One session of a plan: stems of chapters, names of exercises begun in class or left for home, and minutes of work
    on something larger."""

    week: int
    chapters: str
    in_class: str = ""
    at_home: str = ""
    project: int = 0


@dataclass(frozen=True)
class Minutes:
    """How long things take where nothing can be counted. An exercise that is not core counts as an extra one."""

    vote: int
    live: int
    look_back: int
    core: int
    extra: int

    def exercise(self, name):
        return self.core if EXERCISES[name].core else self.extra


def words_of(text):
    """Words of a page without its code and its front matter."""
    return len(CODE.sub(" ", FRONT.sub("", text)).split())


def read_chapter(stem, part):
    text = (ROOT / "book" / f"{stem}.md").read_text(encoding="utf-8")
    promised = re.search(r"About (\d+) minutes", text)
    return Chapter(
        stem=stem,
        part=part,
        title=re.search(r"^# (.+)$", FRONT.sub("", text), re.MULTILINE)[1],
        words=words_of(text),
        figures=text.count("figures.show("),
        predictions=text.count("```{predict}"),
        promised=int(promised[1]) if promised else None,
        exercises=tuple(name for name in re.findall(r"```\{exercise\} (\w+)", text) if name in EXERCISES),
    )


def chapters():
    """{stem: Chapter} in the order of _toc.yml, without front page, inventory and appendix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [(c["file"], p["caption"]) for p in toc["parts"] if p["caption"] not in APART for c in p["chapters"]]
    return {file.split("/")[-1]: read_chapter(file.split("/")[-1], part) for file, part in found}


def present(plan, course, names=EXERCISES):
    """`plan` without the chapters and exercises that the course does not have (yet), and without empty sessions."""

    def keep(words, known):
        return " ".join(word for word in words.split() if word in known)

    sessions = [
        Session(s.week, keep(s.chapters, course), keep(s.in_class, names), keep(s.at_home, names), s.project)
        for s in plan
    ]
    return [s for s in sessions if s.chapters]


def complaints(plan, course, minutes, class_limit, week_limit, elective=()):
    """Sentences about what is wrong with a plan: a chapter or a core exercise that is missing or there twice, an
    exercise before its chapter, a session over `class_limit` minutes, a week over `week_limit` minutes."""
    taught = [stem for s in plan for stem in s.chapters.split()]
    done = [name for s in plan for name in f"{s.in_class} {s.at_home}".split()]
    for stem in course:
        if taught.count(stem) != 1 and not (stem in elective and stem not in taught):
            yield f"chapter {stem} is in the plan {taught.count(stem)} times"
    for name, exercise in EXERCISES.items():
        wanted = exercise.core and exercise.stem in course and exercise.stem not in elective
        if done.count(name) > 1 or (wanted and not done.count(name)):
            yield f"exercise {name} is in the plan {done.count(name)} times"
    order = [stem for stem in course if stem in taught]
    if [stem for stem in taught if stem in order] != order:
        yield "the plan does not keep the order of the chapters"
    for number, s in enumerate(plan, 1):
        so_far = [stem for before in plan[:number] for stem in before.chapters.split()]
        for name in f"{s.in_class} {s.at_home}".split():
            if EXERCISES[name].stem not in so_far:
                yield f"exercise {name} comes before its chapter"
        if time_in_class(plan, number, course, minutes) > class_limit:
            yield f"session {number} takes {time_in_class(plan, number, course, minutes)} minutes of {class_limit}"
    for week, total in weeks(plan, course, minutes, class_limit).items():
        if total > week_limit:
            yield f"week {week} takes {total} minutes of {week_limit}"


def time_in_class(plan, number, course, minutes):
    """Minutes of session `number` (from 1): looking back (in the first: opening the notebooks), votes, one
    live measurement a chapter, exercises."""
    s = plan[number - 1]
    stems = s.chapters.split()
    votes = sum(course[stem].predictions for stem in stems) * minutes.vote
    return minutes.look_back + votes + len(stems) * minutes.live + sum(map(minutes.exercise, s.in_class.split()))


def time_at_home(s, course, minutes):
    """Minutes after a session: reading its chapters, the exercises left for home, and the project."""
    reading = sum(course[stem].reading for stem in s.chapters.split())
    return reading + sum(map(minutes.exercise, s.at_home.split())) + s.project


def weeks(plan, course, minutes, class_length):
    """{week: minutes of work}: sessions at their full length, and what is done at home."""
    total = {}
    for s in plan:
        total[s.week] = total.get(s.week, 0) + class_length + time_at_home(s, course, minutes)
    return total


def graded_cells():
    """(kind, name, points) of every graded cell of the released notebooks: kind "check", "measure" or "explanation"."""
    for path in sorted((ROOT / "exercises").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            marks = cell["metadata"].get("nbgrader", {})
            if marks.get("grade"):
                kind, _, name = marks["grade_id"].partition("-")
                yield kind, name, marks["points"]


def points():
    """{kind of cell: points of all notebooks together}."""
    total = {"check": 0, "measure": 0, "explanation": 0}
    for kind, _, worth in graded_cells():
        total[kind] += worth
    return total


def shares():
    """{part: percent of an exercise's points}, as most exercises have it."""
    worth = {}
    for kind, name, value in graded_cells():
        if kind == "check":
            exercise, part = name.rsplit("-", 1)
            worth.setdefault(exercise, {})[part] = value
    ways = Counter(tuple((part, 100 * v / sum(its.values())) for part, v in its.items()) for its in worth.values())
    return dict(ways.most_common(1)[0][0])


# ---- drawing -----------------------------------------------------------------------------------------------------


def hours(minutes):
    """Minutes in words: "45 min", "3 h", "3 h 20"."""
    h, m = divmod(round(minutes), 60)
    return f"{m} min" if not h else f"{h} h {m:02}" if m else f"{h} h"


def link(stem, text, heading=None):
    anchor = f"#{make_id(heading)}" if heading else ""
    return f'<a href="{stem}.html{anchor}">{html.escape(text)}</a>'


def exercise_links(names):
    def star(name):
        return " ★" if EXERCISES[name].core else ""

    return ", ".join(f'<a href="{EXERCISES[n].stem}.html#exercise-{n}"><code>{n}</code></a>{star(n)}' for n in names)


def cards(items):
    """HTML of (title, [(name, HTML), ...]) pairs, one under the other: what is too wide for a table on a phone."""
    rows = ""
    for title, facts in items:
        inner = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{text}</dd></div>" for name, text in facts if text)
        rows += f"<li><p><strong>{html.escape(title)}</strong></p><dl>{inner}</dl></li>"
    return f'<ul class="cards">{rows}</ul>'


def plan_cards(plan, course, minutes, live, unit):
    """HTML of a plan, a card for each session."""

    def with_exercises(text, names):
        return f"{text}; {exercise_links(names.split())}" if names else text

    items, week = [], 0
    for number, s in enumerate(plan, 1):
        stems, named = s.chapters.split(), f"{s.in_class} {s.at_home}".split()
        more = [name for stem in stems for name in course[stem].exercises if name not in named]
        votes = sum(course[stem].predictions for stem in stems)
        title = f"{unit} {number}" if s.week == week else f"Week {s.week}, {unit.lower()} {number}"
        week = s.week
        in_class = hours(time_in_class(plan, number, course, minutes))
        at_home = hours(time_at_home(s, course, minutes))
        facts = [
            ("chapters", ", ".join(link(stem, course[stem].title) for stem in stems)),
            ("in class", with_exercises(f"{in_class}: {votes} vote{'s' * (votes != 1)}", s.in_class)),
            ("live", "; ".join(live[stem] for stem in stems)),
            ("at home", with_exercises(f"{at_home}: read{', and the notebook' * bool(s.project)}", s.at_home)),
            ("for more", exercise_links(more)),
        ]
        items.append((title, facts))
    return cards(items)


def mistakes_by_misconception():
    """{slug of the misconception: {exercise: how many of its known mistakes}}."""
    found = {slug: {} for slug in MISCONCEPTIONS}
    for exercise, mistakes in MISTAKES.items():
        for mistake in mistakes:
            its = found[of(exercise, mistake.slug).slug]
            its[exercise] = its.get(exercise, 0) + 1
    return found


def misconception_cards(course):
    """HTML of all misconceptions, folded by group."""
    counts, out = mistakes_by_misconception(), ""
    for group, title in GROUPS.items():
        entries = [entry for entry in MISCONCEPTIONS.values() if entry.group == group]
        items = ""
        for entry in entries:
            its = counts[entry.slug]
            exercises = ", ".join(f"<code>{name}</code>" for name in its)
            shown = entry.chapter in course
            again = (
                link(entry.chapter, f"{course[entry.chapter].title} {entry.heading}", entry.heading) if shown else ""
            )
            items += (
                f'<li id="misconception-{entry.slug}"><p><strong>{html.escape(entry.title)}</strong> '
                f'<span class="kind">{entry.kind}</span></p><dl>'
                f"<div><dt>believes</dt><dd>{html.escape(entry.belief)}</dd></div>"
                f"<div><dt>teach</dt><dd>{html.escape(entry.teach)}</dd></div>"
                f"<div><dt>read again</dt><dd>{again}</dd></div>"
                f"<div><dt>known as</dt><dd>{sum(its.values())} mistakes in {exercises}</dd></div></dl></li>"
            )
        total = sum(sum(counts[entry.slug].values()) for entry in entries)
        out += (
            f'<details class="fold"><summary>{html.escape(title)} ({total} mistakes)</summary>'
            f'<ul class="cards">{items}</ul></details>'
        )
    return out


def core_cards(course, minutes):
    """HTML of the core exercises of the chapters in `course`: minutes, known mistakes, and what each teaches."""
    items = []
    for stem in course:
        path = ROOT / "solutions" / stem / f"{stem}.py"
        cells = jupytext.read(path, fmt="py:percent").cells if path.is_file() else ()
        after = {cell.metadata["after"]: cell.source for cell in cells if "after" in cell.metadata}
        for name in (n for n in course[stem].exercises if EXERCISES[n].core):
            first = re.split(r"(?<=\.) ", after[name].replace("\n", " "))[0]
            text = re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*", "", html.escape(first, quote=False)))
            its = f"{minutes.exercise(name)} minutes; {len(MISTAKES[name])} known mistakes"
            items.append((name, [("chapter", link(stem, course[stem].title)), ("takes", its), ("teaches", text)]))
    return cards(items)
