"""The data plane: which model a request means, what is sent, how the answer comes back."""
