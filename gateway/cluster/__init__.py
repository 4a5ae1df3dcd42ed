"""Models on several machines, which Ray holds together. Only a child process imports Ray."""
