"""What changes in production: alarms, scores, answers, traffic."""
