"""Recurring runs over named datasets: when they are due, what they compute anew, and what they report.

`rule`, `occurrences`, `due` and `overlap` decide and are pure; `clock`, `start` and `finish` write.
"""
