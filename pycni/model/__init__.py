"""The values that every layer speaks in: immutable, validated when made, in the field's words."""
