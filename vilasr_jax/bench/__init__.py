"""Benchmarks: each compares several ways of doing the same thing in one run."""
