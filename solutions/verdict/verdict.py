# %% [markdown]
# # So who was right?
#
# No function to write here: you predict once more, and then you answer the person who asked.

# %% setup=true
import torch

from normlab.predict import compare

torch.manual_seed(0)
norm = torch.nn.BatchNorm2d(1)
x = torch.randn(2, 1, 2, 2)

# %% [markdown] ask="outlier"
# ## Predict first: one of eight runs away
#
# The eight numbers of the question are in `x`, and `norm` is the batch norm they go through. Now one of them becomes
# 1,000,000, and the others stay. What is the largest of the eight outputs? Write a number, to one digit after the point.

# %% prediction="outlier"
prediction = None  # yours
### BEGIN INSTRUCTOR
prediction = 2.6
### END INSTRUCTOR

# %% measure="outlier" points=1
far = x.clone()
far[0, 0, 0, 0] = 1e6
compare(prediction, float(norm(far).max().detach()))

# %% [markdown] told="outlier"
# The square root of 7, whatever the runaway was: among N numbers none can lie farther than the square root of N - 1 standard
# deviations from their mean, because it pulls both along. So the outputs depend on who else is in the batch. And their sum
# is still 0.

# %%
for size in (1, 10, 1e3, 1e6):
    far[0, 0, 0, 0] = size
    y = norm(far).detach()
    print(
        f"{size:>9g}: largest output {y.max():.4f}, sum {y.sum():+.1e}, share of the softmax {y.flatten().softmax(0).max():.3f}"
    )

# %% [markdown] explain="verdict"
# ## In your own words
#
# Answer the question that the course began with, in one paragraph, to the person who asked it: "BatchNorm's output sums to 0,
# not 1: isn't normalization supposed to make a distribution?" Say what is true in what they observed, what batch norm does,
# what would give weights that sum to 1, and name one number that anybody can measure to see that you are right.

# %% [markdown] explanation="verdict" points=4
# Your observation is right: the outputs sum to 0 because batch norm subtracts the mean of each channel, and a weight does not
# change that; only the bias moves the sum. Batch norm's outputs are values: one shift and one scale per channel, taken from
# the batch. Those values have a distribution already, as your inputs had: each of the eight counts 1/8, and that sums to 1
# before and after. Weights that sum to 1 come from softmax, which takes values and gives each a share. Measure the standard
# deviation, too: it is 1 up to eps with a weight of 1, and in the printout it is 0.4962, because that version of PyTorch drew
# the weight at random. "Normalize" is used for both, and they have little in common.
#
# **Rubric**
#
# - 1 point: the sum is 0 because the mean is subtracted; the weight keeps it, and only the bias moves it
# - 1 point: outputs of batch norm are values, those of softmax weights
# - 1 point: the values have an empirical distribution already, 1/N each, before and after
# - 1 point: names a number that can be measured, and what it would be if the answer were wrong
