"""The parts of the docker runtime: talking to an engine, what a container is made of, its output, its figures.

client    every bounded call, by the Docker SDK in threads of its own
stream    the two endless answers (output, events), by asyncio
launching what a `Launch` becomes as a container (pure)
networks  one network for each app
output    from the engine's log into the instance's two files, without gap or repetition
ends      waking who waits for a container's end
figures   what a container uses, read from the kernel
"""
