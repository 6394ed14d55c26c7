"""The statistics of live performance: values in, frozen results out, no I/O and no clock.

`entries`, `reports` and `labelling` turn predictions and outcomes into labelled rows, `cells` and `sums` add them up,
`confidence` says how sure the sums are at every look, `split` whether the arms may be compared at all, and `verdicts`
says it in words. `looking` makes a look of all that, on the `memory` that earlier looks have left.
"""
