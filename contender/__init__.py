"""What people import and type: the client, the command line and the embedded stack."""
