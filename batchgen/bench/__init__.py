"""What a machine makes of a job: the guide's savings, a batch by its recipe, a compiled script, and batchgen itself.

`rows` lists what is measured, `guide` and `compiled` are the scripts by hand, `own` runs the real command.
"""
