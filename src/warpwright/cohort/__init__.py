"""Many pairs: one description of work, run where there are processors, resumed where it stopped.

`work` is what is to be done, `rule` makes its pairs of a folder's images (`bids` reads their names), `check` refuses it before
anything begins, `provenance` tells what is done already, `pair` registers one pair in some process, `place` tells which folder
it is and who works in it, `run` is what a person asks for, `engine` spreads pairs over Dask's workers (`slurm` asks for jobs of
them), `table`, `page` and `derivatives` are what is left at the end. Nothing heavy is imported here.
"""
