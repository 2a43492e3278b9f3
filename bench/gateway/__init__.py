"""What the gateway adds to a request, next to a bare relay on the same HTTP client, before the same mock upstream."""
