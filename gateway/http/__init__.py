"""The HTTP server: connections, requests and answers. It knows nothing of models and keys."""
