"""BGP: ExaBGP as a disposable child, its lines as values, and the RIB that ExaBGP lacks."""
