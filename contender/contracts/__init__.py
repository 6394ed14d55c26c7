"""What goes over HTTP: the calls of each service, their bodies and answers, the limits, tasks and metrics.

Servers, clients, the command line and the OpenAPI documents all use these. Nothing here opens a connection.
"""
