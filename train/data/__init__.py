"""What is learned from.

data_set      a folder in the Hume-VB layout, read and checked
targets       which columns are learned, on which scale, and what is blank
clip_cache    each file decoded once, memory-mapped
levels        how loud a recording is, and whether it was clipped
device_clips  the clips of a split where the device reads them
ratings       histograms, correlations and constants of the ratings
table1        the paper's Table 1 for any data set
data_check    all that can be found out before a training
voice         a source-filter voice for vocal bursts
corpus        synthetic vocal bursts in the Hume-VB layout
builtin       the corpora that are there without any data
"""
