"""Inference from the command line: pictures from files and streams, answers, and what they took together."""
