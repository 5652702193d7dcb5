"""A zygote for tests, put beside a copy of the Python driver as its part `zygote`: preloads, then forks a kernel
for every request on a listening socket that it has on descriptor 3. Plain os.fork: no namespaces, same user.

A request is a working directory with four descriptors (0 to 2 and the control channel); the answers are the
child's process id and, when it has ended, its wait status.
"""
import posix
import sys


def run(flavour):
    preload = kernel.load_part("preload")  # noqa: F821  # `kernel` is given to every part
    preload.preload(flavour)
    import os
    import select
    import socket

    listener = socket.socket(fileno=3)
    clients = {}  # process id -> the connection that asked for it
    os.write(1, b"ready\n")
    while True:
        if listener in select.select([listener], [], [], 0.01)[0]:  # children are looked for in between
            client = listener.accept()[0]
            words, fds, _, _ = socket.recv_fds(client, 65536, 4)
            pid = os.fork()
            if pid == 0:
                client.close()
                listener.close()
                for other in clients.values():
                    other.close()
                for target, fd in enumerate(fds):
                    high = os.dup2(fd, 100 + target)
                    os.close(fd)
                    os.dup2(high, target)
                    os.close(high)
                os.chdir(words)
                preload.after_fork()
                return
            for fd in fds:
                os.close(fd)
            clients[pid] = client
            client.send(b"%d\n" % pid)
        while clients:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
            if pid == 0:
                break
            clients[pid].send(b"%d\n" % status)
            clients.pop(pid).close()
