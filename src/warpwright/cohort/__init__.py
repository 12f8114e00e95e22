"""Many pairs: one description of work, run where there are processors, resumed where it stopped.

`work` is what is to be done, `check` refuses it before anything begins, `provenance` tells what is done already, `pair`
registers one pair in some process, `plan` and `run` are what a person asks for, `engine` spreads pairs over Dask's workers,
`table` and `page` are what a person reads at the end. Nothing heavy is imported here.
"""
