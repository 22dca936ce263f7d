"""From a request to cells: data sets found, everything checked, what will run and how long it takes."""
