"""What an instructor adds to nbgrader: so far a demonstration, `python -m grading.demo`."""
