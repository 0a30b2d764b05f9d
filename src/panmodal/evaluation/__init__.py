"""Evaluation: tasks (what is asked, and how answers are scored) and their reports."""

from panmodal.evaluation.published import PUBLISHED
from panmodal.evaluation.tasks import TASKS, Report, evaluate, score

__all__ = ["PUBLISHED", "TASKS", "Report", "evaluate", "score"]
