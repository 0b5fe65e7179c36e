# %% [markdown]
# # Know where you stand
#
# Twenty questions before the course, and the same twenty after it. It takes about a quarter of an hour. You are not
# supposed to know the answers: each wrong option is something that people do believe, and the course is there for that.
#
# Your answers stand in this notebook and nowhere else. Nothing is stored, nothing is sent, nothing is graded.
#
# The page `inventory` of the book has the same questions with buttons to click. What it shows "as text, for the
# notebook" can be pasted here.

# %% setup=true
from normlab import inventory

# %% [markdown]
# ## Before the course
#
# No pen, no code, no search: it is about what you think now. Where you have no idea, leave the question open; a lucky
# guess tells you nothing.

# %%
inventory.show()

# %% [markdown]
# Write one letter for each question between the quotes, in order, and `-` for a question that you leave open. Spaces
# and commas do not count.

# %%
before = ""

# %% [markdown]
# Your score, and the chapters that have most for you. The answers you will see after the second time.

# %%
if before:
    inventory.score(before)

# %% [markdown]
# Save the notebook: your answers are in it.
#
# ## After the course
#
# Run the first two code cells again (`Shift` and `Enter`), and answer anew without looking at what you wrote above.

# %%
after = ""

# %% [markdown]
# Both scores and the **normalized gain**: of what was missing before, the share that has come,
#
# $$g = \frac{\text{after} - \text{before}}{1 - \text{before}}.$$
#
# Then every question with its answer, and the belief behind what you chose. (If you skipped the first time:
# `inventory.score(after, before=after)`.)
#
# For one person this is a rough number: one question is five points out of a hundred. And nobody has validated these
# questions on a population. They tell you where to read again; they are not made for grading anybody.

# %%
if after:
    inventory.score(after, before=before)
