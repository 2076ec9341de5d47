"""Files of records: path templates, one live file, the set of open ones."""
