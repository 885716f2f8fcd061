"""Scores over HTTP: one process with a scorer, which batches the sounds of many requests.

Needs the extra `serve`. The modules, in the order of reading:

server          a scorer becomes a server
http_server     the socket, uvicorn, and what no connection may do
application     the paths, and what each of them answers
kserve          the messages of the KServe v2 protocol
bodies          the body of a request, within its limits
request_scorer  one scorer for all requests
metrics         what /metrics says
page            /docs, one HTML page without scripts
refusals        why a request is not answered with scores
"""
