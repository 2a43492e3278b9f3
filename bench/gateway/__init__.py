"""What the gateway adds to a request, next to other gateways and a bare relay, before the same mock upstream."""
