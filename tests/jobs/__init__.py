"""Tests of pipeline.jobs."""
