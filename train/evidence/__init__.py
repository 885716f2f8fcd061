"""What a run is worth.

predictions      a split's predictions beside its ratings
ridge            the baseline that every table shows
significance     intervals and tests over speakers
groups           CCC and bias of groups of clips, and their differences
planned_runs     one of several runs: how far it is, and whether it is still the one asked for
fold_runs        the runs of a cross-validation
best_checkpoint  a run's best checkpoint: its settings and its network
trained_run      a run with its data: predictions that are kept, and the baseline
evaluation       what a run reaches on a split
evaluate         a run on a split of its data, or a cross-validation on all clips
charts           small pictures for the report
report_page      what the report's page holds, as plain data
report_clips     its best and worst predicted clips
report           one HTML page about a run, or about several
table2_runs      the runs of the paper's Table 2
table2           the table from the runs that are there
"""
