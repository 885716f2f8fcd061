"""Sound files in: which files there are, and how each sounds to a model.

codes        what a row says of a file: errors and flags
file_names   names of files as text that every table can hold
sources      where a sound comes from: a file, or a row of a pack
sound        where in a recording there is sound, and where silence
bursts       where in it there are bursts
mpeg_frames  MP3, frame by frame
containers   the recordings in a file, and what is missing of them
mixdown      many channels to one
foreign      kinds of audio that libsndfile refuses
mended_wav   WAV and AIFF whose chunks a writer spoilt
snd_reader   the first reader: libsndfile
av_reader    the second reader: PyAV, for what libsndfile refuses
cutting      pieces of a sound that comes in blocks
level        how loud the model hears a sound: one level for a file, or a running one
recording    one whose samples need not be in memory: measured first, then read
level_curve  the level over time, for a drawing
segments     the bursts of a recording, each as a file of its own
voice_gate   whether a burst is a voice
reader       one file, or an array, as the model hears it
pack_reader  packs: many small files in few Parquet files
pack_writer  writes packs
signatures   what is audio, by suffix and by content
path_list    the paths in a list
inputs       from the command line's AUDIO arguments to files
wav_file     a WAV file of samples at hand
input_spool  the files to score, each once, in shards
"""
