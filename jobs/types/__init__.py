"""What operators configure: job types with their steps, downstream services, schedules."""
