"""A client that speaks NBD byte by byte, for what no careful client library sends. Numbers: NBD protocol."""

import socket
import struct

INIT_PASSWD, IHAVEOPT, OPTION_REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST, SIMPLE_REPLY, CHUNK = 0x25609513, 0x67446698, 0x668E33EF
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK_EXPORT, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY = range(1, 9)
OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS = 9, 10, 11
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_UNKNOWN, REP_ERR_BLOCK_SIZE_REQD, REP_ERR_TOO_BIG = (
    (1 << 31) + n for n in (1, 2, 3, 6, 8, 9))
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH = range(4)


class Closed(Exception):
    """The server has closed the connection."""


class Client:
    """A connection. Everything blocks, for at most `timeout_s`."""

    def __init__(self, path, timeout_s=60, receive_buffer=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def unpack(self, layout):
        return struct.unpack(layout, self.receive(struct.calcsize(layout)))

    def is_closed(self):
        """True once the server has closed; waits for that."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    # ---- negotiation

    def greet(self, client_flags=FIXED_NEWSTYLE | NO_ZEROES):
        """Takes the server's greeting and answers it; returns the server's flags."""
        passwd, ihaveopt, flags = self.unpack(">QQH")
        assert (passwd, ihaveopt) == (INIT_PASSWD, IHAVEOPT), hex(passwd)
        self.send(struct.pack(">I", client_flags))
        return flags

    def send_option(self, option, payload=b"", length=None):
        self.send(struct.pack(">QII", IHAVEOPT, option, len(payload) if length is None else length) + payload)

    def option_reply(self, option):
        """(type, payload) of one reply."""
        magic, about, kind, length = self.unpack(">QIII")
        assert (magic, about) == (OPTION_REPLY, option), (hex(magic), about)
        return kind, self.receive(length)

    def option(self, option, payload=b""):
        """All replies to an option: up to ACK or an error."""
        self.send_option(option, payload)
        replies = [self.option_reply(option)]
        while replies[-1][0] != REP_ACK and not replies[-1][0] >> 31:
            replies.append(self.option_reply(option))
        return replies

    def go(self, name, infos=(), option=OPT_GO):
        """The replies to GO, or to INFO."""
        data = name.encode()
        return self.option(option, struct.pack(">I", len(data)) + data + struct.pack(f">H{len(infos)}H", len(infos), *infos))

    def export_name(self, name, no_zeroes=True):
        """The size and the transmission flags that EXPORT_NAME answers."""
        self.send_option(OPT_EXPORT_NAME, name.encode())
        size, flags = self.unpack(">QH")
        if not no_zeroes:
            assert self.receive(124) == bytes(124)
        return size, flags

    # ---- transmission, with simple replies

    def send_request(self, command, cookie, offset=0, length=0, flags=0, payload=b""):
        self.send(struct.pack(">IHHQQI", REQUEST, flags, command, cookie, offset, length) + payload)

    def simple_reply(self, lengths):
        """(cookie, error, data) of one reply; `lengths` has the bytes that a READ asked for, by cookie."""
        magic, error, cookie = self.unpack(">IIQ")
        assert magic == SIMPLE_REPLY, hex(magic)
        return cookie, error, self.receive(0 if error else lengths.get(cookie, 0))


def meta_query(name, *queries):
    """Payload of LIST_META_CONTEXT and SET_META_CONTEXT."""
    def text(value):
        data = value.encode()
        return struct.pack(">I", len(data)) + data
    return text(name) + struct.pack(">I", len(queries)) + b"".join(text(q) for q in queries)
