"""X.509 core, inventory and certificate authority for electric-vehicle charging; knows nothing of OCPP or of a terminal."""
