"""Thresholds that keep their promise, and whether a detector can work at all."""
