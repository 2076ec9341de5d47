"""Dead letters: records that a sink refused for good, kept until somebody decides about them.

In the order of a letter's life: `box` takes it from a worker into `store` (the control database),
`ndjson` (a file, if the sink is set so) or, when the database is away, `spool`, from which
`importer` brings it home.  `selection` says which letters are meant, `decisions` edits, discards
and asks for a redrive, `tasks` and `runner` carry one out, `retention` forgets, `service` runs all
that in a process.  `admin` and its neighbours are the pages.
"""
