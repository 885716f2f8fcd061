"""From many files to a table of scores. The modules, in the order of reading:

scorer            files or samples in, rows of scores out
scorer_settings   the settings of a scorer, and what it refuses
scoring_model     the loaded backend that batches and single clips run on
decoder_handle    a process that decodes, as the scoring process sees it
decoder_pool      processes that decode, kept busy and replaced when they die
feed              files that come one by one, while others are scored
decoder_start     by which Python a decoder is started, and for which process
decoder_process   what runs in each of them
decoder_messages  what the pool and its processes tell each other
batches           clips of many files in batches
by_length         clips that wait for others of about their length
file_rows         the scored clips of a file, and the rows that they become
engine            what scores the shards of a table: this machine's scorer, or Ray
local_engine      the engine of this machine
ray_engine        the engine of Ray
ray_session       a connection to Ray
folder            a folder of audio becomes a table
table_job         the parts of a table in the making
part_file         the rows of one shard as bytes
table_tracks      label tracks and a page from a table
error_budget      how many bad files are too many
"""
