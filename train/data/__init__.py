"""What is learned from.

table_text        the text of a table as programs save it, whatever their dialect
column_names      which column is which, by the names that the field uses
audio_folder      the audio of each row, found by the name that its cell writes
roles             which columns say the file, the split and the speaker of a row
places            where a data set has its table and its audio
data_set          a table and its audio, read and checked
targets           which columns are learned, on which scale, and what is blank
folds             speaker-disjoint folds of a data set
reading           a data set as the settings of [data] ask for it
clip_cache        each file decoded once, memory-mapped
levels            how loud a recording is, and whether it was clipped
device_clips      the clips of a split where the device reads them
ratings           histograms, correlations and constants of the ratings
table1            the paper's Table 1 for any data set
sound_check       silent and clipped sounds, and the same samples twice
data_check        all that can be found out before a training
source_table      what an import reads, whatever its source
raters            from a row for each rating to a row for each clip
audformat_tables  the tables of a database in audformat
importing         from what people have to a folder that trains
voice             a source-filter voice for vocal bursts
corpus            synthetic vocal bursts in the Hume-VB layout
builtin           the corpora that are there without any data
"""
