"""Scores, ranks, calibration and reports."""
