# The Docker engine, preinstalled as in DGX OS.
install $(packages engine)
