"""Rows of scores, and the files that hold them.

rows            what one scored file, or one window of a file, gives
table_format    what a format of the table says about itself
json_row        a row in JSON, for tables and --json
csv_table       scores.csv, safe for spreadsheets
jsonl_table     scores.jsonl, one object a line
parquet_table   scores.parquet, by columns
formats         the list of the formats
embedding_file  the embeddings of a format that does not hold them
outputs         whether files can be written, and are free to be
writer          writes a table, whole or not at all
submission      the challenge's form of a table
label_tracks    tracks for Audacity, Raven and Praat
timeline_page   a page with levels and scores over time
top_rows        the highest labels of each row, for people

To add a format: write one module with a TableFormat, and add that to the list in formats.py.
"""
