"""What muxframe costs, beside what it could cost and what others cost. README.md says how to run and read it."""
