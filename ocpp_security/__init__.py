"""OCPP connections, security profiles and certificate flows on top of `chargepki.pki`."""
