"""Files into the collector: follow them through rotation, send in batches, remember how far.

Plain Python apart from the command: nothing here knows Django.
"""
