"""Clients that make sure of what happened: each session has a variable that each run makes larger by one and prints, so that a run lost, run
twice or answered with another's result shows. A broken connection or a 503 is tried again with the same Idempotency-Key."""
import random
import threading
import time
import uuid

from client import Client, Session

RETRY_BOUND_S = 120


class Counted:
    def __init__(self, session):
        self.session, self.expected = session, 0


class Callers:
    """`count` threads, each with sessions of its own, until stop()."""

    def __init__(self, make_client, image, count, sessions, seed=0):
        self.make_client = make_client
        self.mistakes = []
        self.runs = self.retries = self.refused = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        api = make_client()
        self.counted = [Counted(Session.create(api, image=image)) for _ in range(sessions)]
        for one in self.counted:
            one.session.run("n = 0")
        api.close()
        self._threads = [threading.Thread(target=self._work, args=(random.Random(seed + i), self.counted[i::count])) for i in range(count)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(RETRY_BOUND_S + 30)
        self.mistakes += [f"{thread} does not end" for thread in self._threads if thread.is_alive()]

    def _work(self, choice, mine):
        client = self.make_client()
        while not self._stop.is_set() and not self.mistakes:
            one = choice.choice(mine)
            one.expected += 1
            answer = self._run(client, one.session)
            record = answer.json if answer is not None and answer.status == 200 else None
            if record is None or record["outcome"] != "ok" or record["stdout"] != f"{one.expected}\n":
                self.mistakes.append(f"{one.session.id}: wanted {one.expected}, got {answer}")
            with self._lock:
                self.runs += 1
        client.close()

    def _run(self, client, session):
        key, until = {"Idempotency-Key": uuid.uuid4().hex}, time.monotonic() + RETRY_BOUND_S
        while time.monotonic() < until:
            try:
                answer = session.via(client).try_run("n += 1\nprint(n)", headers=key)
                if answer.status != 503:
                    return answer
            except ConnectionRefusedError:
                with self._lock:
                    self.refused += 1
                client.close()
            except OSError:
                client.close()
            except Exception as broken:  # http.client: an answer that broke off
                if "http.client" not in type(broken).__module__:
                    raise
                client.close()
            with self._lock:
                self.retries += 1
            time.sleep(0.02)
        return None

    def check_all(self):
        """Every variable is what the runs made of it."""
        api = self.make_client()
        for one in self.counted:
            now = one.session.via(api).run("print(n)")["stdout"]
            if now != f"{one.expected}\n":
                self.mistakes.append(f"{one.session.id}: n is {now!r}, and {one.expected} runs were answered")
        api.close()

    def delete_all(self):
        api = self.make_client()
        for one in self.counted:
            one.session.via(api).delete()
        api.close()

    def __str__(self):
        return f"{self.runs} runs in {len(self.counted)} sessions, {self.retries} retries, {self.refused} connections refused, {len(self.mistakes)} mistakes"


def plain_client(port, key):
    """For Callers: clients on this machine."""
    return lambda: Client("127.0.0.1", port, key)
