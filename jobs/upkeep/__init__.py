"""What is done now and then for all jobs: counting, schedules, forgetting."""
