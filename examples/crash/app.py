import sys

print("about to crash", flush=True)
print("the reason would stand here", file=sys.stderr, flush=True)
sys.exit(3)
