"""Running other people's code on this host: who it runs as, what it sees, what it may use, what it may unpack.

Shared by the agent's process runtime and by the build worker. Imports nothing of ours and no Django, decides no
policy (which app, which limits), and keeps no state of its own.

    identity    one user id per app and per build
    probe       what this host can really do, found out by trial
    bubblewrap  the argv that starts a program in its sandbox, or in the honest fallback
    seccomp     the system calls that no sandboxed program may make
    cgroups     memory, CPU and process limits, v1 and v2 (`cgroup_layouts`)
    namespaces  a process of ours that is root of nothing but a few users
    network     keeps app and build users away from loopback and control ports (nftables)
    archive     reads hostile archives, writes deterministic packages
"""
