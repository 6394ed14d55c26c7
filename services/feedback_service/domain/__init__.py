"""The statistics of live performance: values in, frozen results out, no I/O and no clock.

`losses` and `histograms` turn outcomes and scores into numbers, `sums` merges them, `confidence` says how sure they
are at every look, `split` and `arrival` say whether the arms may be compared at all, `verdicts` says it in words.
"""
