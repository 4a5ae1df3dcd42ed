"""The HTTP server: connections, requests and answers. It knows no model and no key."""
