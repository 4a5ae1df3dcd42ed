"""The OpenAPI document: made from the route table and the YAML files of this package."""
