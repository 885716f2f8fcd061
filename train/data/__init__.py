"""What is learned from.

column_names      the usual names of columns and of splits
table_text        the text of a table as programs save it
places            where a data set has its table and its audio
audio_folder      the recordings that a table names
data_set          a table of ratings and its recordings, read and checked
targets           which columns are learned, on which scale, and what is blank
folds             speakers in parts, of which each validates once
reading           a data set as the settings ask for it
clip_cache        each file decoded once, memory-mapped
levels            how loud a recording is, and whether it was clipped
device_clips      the clips of a split where the device reads them
ratings           histograms, correlations and constants of the ratings
table1            the paper's Table 1 for any data set
data_check        all that can be found out before a training
voice             a source-filter voice for vocal bursts
corpus            synthetic vocal bursts in the Hume-VB layout
source_table      what an import reads, whatever its source
audformat_tables  the tables of a database in audformat
importing         from what people have to a folder that trains
builtin           the corpora that are there without any data
"""
