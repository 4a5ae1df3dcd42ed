"""The OpenAPI document: made from the route table, and from what the YAML files here add to it."""
