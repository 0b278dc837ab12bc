"""Tests of `score/index/`."""
