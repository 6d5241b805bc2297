"""Detectors turn samples into features, metrics compare them with the train split's, `MetricSuite`
runs both.
"""
