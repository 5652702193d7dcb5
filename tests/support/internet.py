"""A small internet for the tests, run by world.py in a network namespace without any way out:
a name server, web servers under many names, and a package registry for pip and npm.

Usage: internet.py DIRECTORY    with ca.pem and server.pem in it, and registry/ with packages."""
import base64
import hashlib
import http.server
import io
import json
import pathlib
import socket
import socketserver
import ssl
import sys
import tarfile
import threading

import dnslib
import dnslib.server

DIRECTORY = pathlib.Path(sys.argv[1])
WWW, WWW6 = "93.184.216.34", "2606:2800:220:1::34"
NAMES = {
    "pypi.org": [WWW], "files.pythonhosted.org": [WWW], "registry.npmjs.org": [WWW], "www.example.com": [WWW], "api.example.com": [WWW],
    "other.example.com": [WWW], "six.example.com": [WWW6], "private.example.com": ["10.1.2.3"], "meta.example.com": ["169.254.169.254"],
    "loop.example.com": ["127.0.0.1"], "proxy.example.com": ["93.184.216.1"], "mapped.example.com": ["::ffff:10.1.2.3"], "nat64.example.com": ["64:ff9b::a01:203"],
    "mixed.example.com": ["10.1.2.3", WWW], "denied.example.com": ["93.184.216.66"], "dead.example.com": ["93.184.216.99"],
}


class Resolver(dnslib.server.BaseResolver):
    """`rebind.example.com` is public at every odd question and private at every even one."""

    def __init__(self):
        self.asked = 0

    def resolve(self, request, handler):
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        addresses = NAMES.get(name)
        if name == "rebind.example.com" and request.q.qtype == dnslib.QTYPE.A:
            self.asked += 1
            addresses = [WWW if self.asked % 2 else "10.1.2.3"]
        if addresses is None and name != "rebind.example.com":
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        for address in addresses or []:
            six = ":" in address
            if request.q.qtype == (dnslib.QTYPE.AAAA if six else dnslib.QTYPE.A):
                reply.add_answer(dnslib.RR(request.q.qname, request.q.qtype, ttl=0, rdata=dnslib.AAAA(address) if six else dnslib.A(address)))
        return reply


def npm_document(name, host):
    versions = {}
    for path in (DIRECTORY / "registry").glob(f"{name}-*.tgz"):
        data = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            package = json.load(archive.extractfile("package/package.json"))
        package["dist"] = {"tarball": f"https://{host}/npm-files/{path.name}", "shasum": hashlib.sha1(data).hexdigest(),
                           "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()}
        versions[package["version"]] = package
    return {"name": name, "dist-tags": {"latest": max(versions)}, "versions": versions} if versions else None


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        host, path = (self.headers.get("Host") or "").split(":")[0], self.path
        registry = DIRECTORY / "registry"
        if path.startswith("/bytes/"):
            return self.answer(b"x" * int(path.removeprefix("/bytes/")), "application/octet-stream")
        if path == "/redirect-inside":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if host == "pypi.org" and path.startswith("/simple/"):
            name = path.removeprefix("/simple/").strip("/")
            files = [p for p in registry.glob("*.whl") if p.name.split("-")[0].lower() == name]
            links = "".join(f'<a href="https://files.pythonhosted.org/{p.name}#sha256={hashlib.sha256(p.read_bytes()).hexdigest()}">{p.name}</a>' for p in files)
            return self.answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html", 200 if files else 404)
        if host == "files.pythonhosted.org" or path.startswith("/npm-files/"):
            found = registry / path.split("/")[-1]
            return self.answer(found.read_bytes(), "application/octet-stream") if found.is_file() else self.answer(b"", status=404)
        if host == "registry.npmjs.org":
            document = npm_document(path.strip("/"), host)
            return self.answer(json.dumps(document).encode()) if document else self.answer(b"{}", status=404)
        self.do_POST()

    def do_POST(self):
        """Tells the client what arrived here."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.answer(json.dumps({"at": self.server.server_address[0], "port": self.server.server_address[1], "method": self.command, "path": self.path,
                                "headers": dict(self.headers), "body": body.decode("latin-1")}).encode())

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Server6(Server):
    address_family = socket.AF_INET6


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello\n")
        while data := self.request.recv(65536):
            self.request.sendall(data)


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(DIRECTORY / "server.pem")
for address in (WWW, "10.1.2.3", "169.254.169.254", "93.184.216.66"):
    serve(Server((address, 80), Web))
    secure = Server((address, 443), Web)
    secure.socket = tls.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    serve(secure)
    serve(Server((address, 8443), Web))
    serve(Server((address, 2222), Echo))
serve(Server6((WWW6, 80), Web))
dnslib.server.DNSServer(Resolver(), address="93.184.216.53", port=53, logger=dnslib.server.DNSLogger(logf=lambda _: None)).start_thread()
print("ready", flush=True)
threading.Event().wait()
