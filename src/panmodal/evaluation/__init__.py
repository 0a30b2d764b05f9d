"""Evaluation: tasks (what is asked, and how answers are scored) and their reports."""

from panmodal.evaluation.published import PUBLISHED
from panmodal.evaluation.results import Report
from panmodal.evaluation.tasks import TASKS, evaluate, score

__all__ = ["PUBLISHED", "TASKS", "Report", "evaluate", "score"]
