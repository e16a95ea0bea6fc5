"""Clips: which frames of a tracklet, transformed how, in which batch."""
