"""What lateness costs, in nbgrader_config.py:

    c.AssignLatePenalties.plugin_class = "grading.late.LatePenalty"
    c.LatePenalty.per_day = 10

nbgrader's own plugin knows two answers, nothing and everything. After a date, an extension or a paragraph's points have
changed, `python -m grading.dates penalties ASSIGNMENT` computes the penalties anew.
"""

import math

from nbgrader.plugins import BasePlugin
from traitlets import Float

DAY = 24 * 60 * 60


def percent(seconds, per_day, most, grace_minutes, closed_after_days):
    """What percent of the score is lost: `per_day` for each day begun, never more than `most`, then all of it.

    seconds: late by how many. Within the grace nothing is lost; after it the days count from the due date.

    >>> [percent(60 * minutes, 10, 50, 15, 14) for minutes in (15, 16, 24 * 60, 24 * 60 + 1, 10 * 24 * 60)]
    [0.0, 10.0, 10.0, 20.0, 50.0]
    >>> percent(15 * DAY, 10, 50, 15, 14)
    100.0
    """
    if seconds <= 60 * grace_minutes:
        return 0.0
    if closed_after_days and seconds > closed_after_days * DAY:
        return 100.0
    return float(min(most, per_day * math.ceil(seconds / DAY), 100.0))


class LatePenalty(BasePlugin):
    """nbgrader's plugin: what it returns is taken off the score of a late notebook."""

    per_day = Float(10.0, min=0, max=100, help="percent of the score for each day begun").tag(config=True)
    most = Float(50.0, min=0, max=100, help="percent that is lost at most, before it is closed").tag(config=True)
    grace_minutes = Float(15.0, min=0, help="minutes that cost nothing").tag(config=True)
    closed_after_days = Float(0.0, min=0, help="after so many days everything is lost; 0: never").tag(config=True)

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return (
            score
            * percent(total_seconds_late, self.per_day, self.most, self.grace_minutes, self.closed_after_days)
            / 100
        )
