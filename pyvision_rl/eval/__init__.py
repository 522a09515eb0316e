"""How good a policy is on tasks it has not seen: playing them, counting, reporting."""
