"""The gateway as a service of systemd: what is installed for it, and how it is updated."""
