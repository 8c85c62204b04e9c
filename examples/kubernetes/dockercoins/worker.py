"""worker: has random bytes hashed, for ever, and counts in redis.

A digest that begins with 0 is a coin.
"""

import socket
import time
import urllib.request

WAIT_S = 5.0
PAUSE_S = 0.1
PAUSE_AFTER_ERROR_S = 1.0


def work() -> None:
    """Make one hash."""
    with urllib.request.urlopen("http://rng/32", timeout=WAIT_S) as answer:
        drawn = answer.read()
    with urllib.request.urlopen("http://hasher/", data=drawn, timeout=WAIT_S) as answer:
        digest = answer.read().decode("ascii")
    count("hashes")
    if digest.startswith("0"):
        count("coins")


def count(counter: str) -> None:
    """Add one to a counter of redis."""
    with socket.create_connection(("redis", 6379), timeout=WAIT_S) as connection:
        connection.sendall(f"INCRBY {counter} 1\r\n".encode("ascii"))
        answer = connection.recv(64)
    if not answer.startswith(b":"):
        raise OSError(f"redis answered {answer!r}")


if __name__ == "__main__":
    while True:
        try:
            work()
            time.sleep(PAUSE_S)
        except OSError as error:
            print(f"cannot work: {error}", flush=True)
            time.sleep(PAUSE_AFTER_ERROR_S)
