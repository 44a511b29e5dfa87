#!/usr/bin/env python3
"""tests/s3/faultproxy.py — stands between an S3 client and a server, and does what networks and servers do on bad days

usage: faultproxy.py PORT UPSTREAM_PORT [--plan PLAN | --seed N --rate R --faults A,B,…] [--log FILE]

PLAN   METHOD:N:FAULT,…  the N-th request (from 1) of that method (* any) has that fault; N+ from the N-th on
seed   by seed and number of the request: the same faults at the same requests each time; R is their share (0 … 1)
log    one line for each request: number, method, path, fault or '-'

Faults
  error500 error503 slowdown toomany   such an answer, the server never sees the request; slowdown and toomany with Retry-After: 1 only in its name "…_after"
  reset       the connection is reset before the server sees the request
  lost        the server does it, its answer is lost in a reset
  late500     the server does it, the answer is 500
  reset_mid   reset in the middle of the answer's body
  short       the answer ends in the middle, its Content-Length says more
  less        the answer is consistently for fewer bytes than were asked for
  other_range Content-Range and bytes of another place
  etag        a wrong ETag
  stall       half of the body, then nothing (STALL_S)
  mute        no answer at all (STALL_S)
  flip_up     one bit of the request's body is another
  flip_down   one bit of the answer's body is another
  skew        403 RequestTimeTooSkewed, with a Date one hour ahead
  expired     400 ExpiredToken
  denied      403 AccessDenied
  missing     404 NoSuchKey
  region      301 without a word about where
  garbage     not HTTP
  badxml      200 with XML that breaks off
  hugehead    a header line without end
"""
import argparse, hashlib, random, re, socket, struct, sys, threading, time
from email.utils import formatdate

STALL_S = 30
HALF = {"reset_mid", "short", "stall"}


class Link:
    """One side: a socket, and what was read of it but not used."""

    def __init__(self, sock):
        self.s, self.buf = sock, b""
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fill(self):
        data = self.s.recv(262144)
        self.buf += data
        return bool(data)

    def head(self):
        while b"\r\n\r\n" not in self.buf:
            if not self.fill():
                return None
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        return lines[0], [tuple(x.split(":", 1)) for x in lines[1:]]

    def body(self, n):
        parts, have = [self.buf[:n]], min(len(self.buf), n)
        self.buf = self.buf[n:]
        while have < n:
            data = self.s.recv(min(262144, n - have))
            if not data:
                raise ConnectionError
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()


def get(headers, name):
    return next((v.strip() for k, v in headers if k.lower() == name), None)


def put(headers, name, value):
    return [(k, v) for k, v in headers if k.lower() != name.lower()] + [(name, value)]


def raw(first, headers, body=b""):
    return (first + "\r\n" + "".join(f"{k}:{v if v.startswith(' ') else ' ' + v}\r\n" for k, v in headers) + "\r\n").encode("latin-1") + body


def error(status, code, more=(), ahead=0, method="GET"):
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>by the fault proxy</Message></Error>'.encode()
    h = [("Date", formatdate(time.time() + ahead, usegmt=True)), ("Content-Type", "application/xml"), ("Content-Length", str(len(body)))] + list(more)
    return raw(f"HTTP/1.1 {status} Fault", h, b"" if method == "HEAD" else body)


INSTEAD = {
    "error500": (500, "InternalError"), "error503": (503, "ServiceUnavailable"), "slowdown": (503, "SlowDown"), "toomany": (429, "TooManyRequests"),
    "slowdown_after": (503, "SlowDown", [("Retry-After", "1")]), "toomany_after": (429, "TooManyRequests", [("Retry-After", "1")]),
    "skew": (403, "RequestTimeTooSkewed", (), 3600), "expired": (400, "ExpiredToken"), "denied": (403, "AccessDenied"), "missing": (404, "NoSuchKey"),
    "region": (301, "PermanentRedirect"),
}


class Proxy:
    def __init__(self, args):
        self.args, self.lock, self.counts, self.total = args, threading.Lock(), {}, 0
        self.plan = []
        for item in filter(None, (args.plan or "").split(",")):
            method, n, fault = item.split(":")
            self.plan.append((method, int(n.rstrip("+")), n.endswith("+"), fault))
        self.faults = [f for f in (args.faults or "").split(",") if f]
        self.log = open(args.log, "a", buffering=1) if args.log else None

    def choose(self, method, path):
        with self.lock:
            self.total += 1
            n = self.counts[method] = self.counts.get(method, 0) + 1
            number, fault = self.total, None
            for m, at, on, f in self.plan:
                k = number if m == "*" else n
                if (m == method or m == "*") and (k == at or (on and k >= at)):
                    fault = f
            if self.faults:
                r = random.Random(hashlib.md5(f"{self.args.seed}/{number}".encode()).digest())
                if r.random() < self.args.rate:
                    fault = r.choice(self.faults)
            if self.log:
                self.log.write(f"{number} {method} {path} {fault or '-'}\n")
            return fault

    def serve(self, client):
        server = None
        try:
            while True:
                got = client.head()
                if not got:
                    break
                first, headers = got
                method, path, _ = first.split(" ", 2)
                body = client.body(int(get(headers, "content-length") or 0))
                fault = self.choose(method, path)
                if not self.instead(client, fault, method):
                    return
                if fault in INSTEAD or fault == "badxml":
                    continue
                if fault == "flip_up" and body:
                    body = flip(body)
                server = server or Link(socket.create_connection(("127.0.0.1", self.args.upstream)))
                server.s.sendall(raw(first, headers, body))
                if not self.answer(client, server, fault, method):
                    return
        except (ConnectionError, OSError, ValueError):
            pass
        finally:
            client.s.close()
            if server:
                server.s.close()

    def instead(self, client, fault, method):
        """The faults for which the server is not asked. False: the connection is over."""
        if fault in INSTEAD:
            status, code, *rest = INSTEAD[fault]
            client.s.sendall(error(status, code, *rest, method=method))
        elif fault == "badxml":
            client.s.sendall(raw("HTTP/1.1 200 OK", [("Content-Length", "40")], b"<?xml version='1.0'?><ListBucketResult><"[:40]))
        elif fault == "reset":
            client.reset()
            return False
        elif fault == "mute":
            time.sleep(STALL_S)
            return False
        elif fault == "garbage":
            client.s.sendall(b"\x00\x01 this is not HTTP\r\n\r\n")
            return False
        elif fault == "hugehead":
            client.s.sendall(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 2000000 + b"\r\n\r\n")
            return False
        return True

    def answer(self, client, server, fault, method):
        """Hands the server's answer on. False: the connection is over."""
        first, headers = server.head()
        while first.split(" ")[1] == "100":
            first, headers = server.head()
        n = int(get(headers, "content-length") or 0)
        body = server.body(n) if method != "HEAD" and first.split(" ")[1] not in ("204", "304") else b""
        ok = first.split(" ")[1] in ("200", "206")
        if fault == "lost":
            client.reset()
            return False
        if fault == "late500":
            client.s.sendall(error(500, "InternalError", method=method))
            return True
        if fault == "etag" and ok:
            headers = put(headers, "ETag", '"00000000000000000000000000000bad"')
        if fault == "flip_down" and ok and body:
            body = flip(body)
        rng = re.match(r"bytes (\d+)-(\d+)/(\d+)", get(headers, "content-range") or "")
        if fault == "less" and rng and len(body) > 1:
            body = body[: len(body) // 2]
            headers = put(headers, "Content-Range", f"bytes {rng[1]}-{int(rng[1]) + len(body) - 1}/{rng[3]}")
            headers = put(headers, "Content-Length", str(len(body)))
        if fault == "other_range" and rng and len(body) > 1:
            body = body[1:]
            headers = put(headers, "Content-Range", f"bytes {int(rng[1]) + 1}-{rng[2]}/{rng[3]}")
            headers = put(headers, "Content-Length", str(len(body)))
        if fault in HALF and body:
            client.s.sendall(raw(first, headers, body[: len(body) // 2]))
            if fault == "reset_mid":
                time.sleep(0.05)  # what was sent is to arrive
                client.reset()
            elif fault == "stall":
                time.sleep(STALL_S)
            return False
        client.s.sendall(raw(first, headers, body))
        return True


def flip(body):
    at = len(body) // 3
    return body[:at] + bytes([body[at] ^ 4]) + body[at + 1:]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("port", type=int)
    p.add_argument("upstream", type=int)
    p.add_argument("--plan")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rate", type=float, default=0.2)
    p.add_argument("--faults")
    p.add_argument("--log")
    args = p.parse_args()
    proxy = Proxy(args)
    s = socket.create_server(("127.0.0.1", args.port), backlog=256)
    while True:
        c, _ = s.accept()
        threading.Thread(target=proxy.serve, args=(Link(c),), daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
