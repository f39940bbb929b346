"""Logs, from one container to a fleet: lines that survive restarts, gathered, and kept.

    resume.py       where one is in a log, and how to get back there; no I/O
    following.py    what following one log consists of, step by step; no I/O
    follow.py aio.py    the two shells around that: Follower, blocking and on asyncio
    gather.py       many containers at once
    sinks.py        files that rotate, JSON lines, Parquet, the logging module
    waiting.py      wait_for: up to a line that matches
"""
