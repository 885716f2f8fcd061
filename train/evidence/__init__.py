"""What a run is worth: evaluation, statistics, tables, reports."""
