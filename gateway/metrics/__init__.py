"""What ``GET /metrics`` tells Prometheus: made of plain numbers, when somebody asks."""
