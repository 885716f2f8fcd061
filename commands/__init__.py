"""One file a command group: parse, call one function of a layer, print."""
