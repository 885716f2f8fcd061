"""Sound that goes on: from a microphone, or on stdin.

pcm             samples as bytes
wav_stream      the header of a WAV file that comes through a pipe
sound_queue     between the thread that hears and the one that scores
source          where live sound comes from
standard_input  sound on stdin: WAV, or bare samples
microphone      sound of a capture device, by miniaudio
live_scoring    rolling windows of it to rows
"""
