"""The paper's tables: methods, the grid of samples, metrics, tables and sheets.

`command` is the command line; `methods` has the rows, `networks` their networks, `grid` the samples, `table`
what is made of them; `renderers` and `ebb` judge lenses and photos alone.
"""
