"""The datastore's implementations behind one door."""
