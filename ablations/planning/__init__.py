"""Plans: the data, study and cells of a request, checked, with estimates of time and disk."""
