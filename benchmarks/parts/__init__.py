"""The parts of `speed.py`: what is timed, in which processes, and a file for each section."""
