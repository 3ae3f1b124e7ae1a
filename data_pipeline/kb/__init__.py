"""The knowledge base: entities and their frozen features, built once, found fast, added to."""
