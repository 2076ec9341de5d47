"""What every HTTP answer shares: problem+json, request ids, who may call."""
