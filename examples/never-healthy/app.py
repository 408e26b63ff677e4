import time

print("running, but not listening", flush=True)
while True:
    time.sleep(3600)
