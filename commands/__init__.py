"""One file a command group: parse, call one function of a layer, print.

program      the program's name as it was called, and what signals do to it
ending       how a command ends: the error, the document, the exit code
lazy_group   commands that are loaded when they are called
options      options that several commands have, and what they mean when left out
streams      the standard streams, also where they are closed
printing     tables and JSON on stdout, lines for the person on stderr
train        rrtn train
evaluate     rrtn evaluate and rrtn report
crossval     rrtn crossval
table2       rrtn table2
export       rrtn export and rrtn parity
inspect      rrtn inspect
score        rrtn score
summary      the rows and the last lines of rrtn score
serve        rrtn serve
tracks       rrtn tracks
live         rrtn score -, and what it shows as rrtn listen does
listen       rrtn listen
pack         rrtn pack
bench        rrtn bench
tune         rrtn tune
data         rrtn data synth, rrtn data import and rrtn data check
data_report  the tables of rrtn data check
doctor       rrtn doctor
demo         rrtn demo: the others, one after the other
"""
