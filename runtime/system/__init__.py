"""What the operating system gives: files, locks, memory and cores.

host            what differs between Linux, macOS and Windows
descriptors     the standard streams, which C libraries use, too
failpoints      places where a test makes the process fail
files           files that are there whole, or not at all
cache           the folder for what may be made again
locks           one process at a time
control_groups  limits of containers, systemd and Slurm
memory          a budget for the memory of this process
cpus            the processor, and how many of its cores may be used
packages        which packages are installed
"""
