"""Readers of data sets, tables and boxes."""
