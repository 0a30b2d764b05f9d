"""Evaluation: tasks (what is asked, and how answers are scored) and their reports."""

from panmodal.evaluation.tasks import TASKS, Report, evaluate

__all__ = ["TASKS", "Report", "evaluate"]
