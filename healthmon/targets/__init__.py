"""What is watched: targets, their tags and groups, maintenance windows."""
