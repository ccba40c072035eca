"""The handshake: what libnbd sees of it, and what happens to clients that break its rules."""

import json
import struct
import time

import harness
import nbd
import nbd_wire as wire
from harness import MiB, run

TEXT = "a disk with a description, Größe: klein"


class OptionsTest(harness.GabionTestCase):
    """By libnbd's option mode."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.create_image("image", 10 * MiB)
        cls.daemon.create_export("plain", "image")
        cls.daemon.create_export("sized", "image", {"minimumBytes": 4096, "preferredBytes": 65536,
                                                    "maximumPayloadBytes": 2 * MiB}, readOnly=True)
        cls.daemon.create_export("named", "image", nbdName="the/long name, with ünïcode", description=TEXT)
        cls.daemon.create_export("hidden", "image", enabled=False)

    def negotiating(self, **options):
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        for name, value in options.items():
            getattr(handle, "set_" + name)(value)
        handle.connect_unix(self.daemon.nbd_socket)
        self.addCleanup(harness.hang_up, handle)
        return handle

    @staticmethod
    def facts(handle):
        return {"size": handle.get_size(), "read-only": handle.is_read_only(), "flush": handle.can_flush(),
                "fua": handle.can_fua(), "trim": handle.can_trim(), "zero": handle.can_zero(), "df": handle.can_df(),
                "fast": handle.can_fast_zero(), "cache": handle.can_cache(), "multi": handle.can_multi_conn(),
                "rotational": handle.is_rotational(), "sizes": [handle.get_block_size(k) for k in range(3)]}

    def test_info_tells_what_go_then_tells(self):
        for name in ("plain", "sized"):
            with self.subTest(name):
                handle = self.negotiating(export_name=name)
                handle.opt_info()
                before = self.facts(handle)
                handle.opt_go()
                self.assertEqual(self.facts(handle), before)

    def test_what_is_advertised(self):
        handle = self.negotiating(export_name="plain")
        handle.opt_go()
        self.assertEqual(self.facts(handle), {
            "size": 10 * MiB, "read-only": False, "flush": True, "fua": True, "trim": True, "zero": True, "df": True,
            "fast": True, "cache": True, "multi": True, "rotational": False, "sizes": [1, 4096, 32 * MiB]})

    def test_what_a_policy_advertises(self):
        handle = self.negotiating(export_name="sized")
        handle.opt_go()
        facts = self.facts(handle)
        self.assertEqual(facts["sizes"], [4096, 65536, 2 * MiB])
        self.assertTrue(facts["read-only"] and facts["multi"] and facts["flush"])
        self.assertFalse(facts["trim"] or facts["zero"] or facts["fast"])

    def test_without_structured_replies_there_is_no_df(self):
        handle = self.negotiating(export_name="plain", request_structured_replies=False)
        handle.opt_go()
        self.assertFalse(handle.can_df())

    def test_an_unknown_export_is_refused_and_another_can_be_asked_for(self):
        handle = self.negotiating(export_name="nobody")
        for _ in range(2):
            with self.assertRaisesRegex(nbd.Error, "ENOENT|No such"):
                handle.opt_info()
        handle.set_export_name("plain")
        handle.opt_go()
        self.assertEqual(handle.get_size(), 10 * MiB)

    def test_a_disabled_export_is_as_if_it_were_not_there(self):
        handle = self.negotiating(export_name="hidden")
        with self.assertRaisesRegex(nbd.Error, "ENOENT|No such"):
            handle.opt_go()

    def test_list_names_each_export_once(self):
        names = []
        self.negotiating().opt_list(lambda name, _description: names.append(name) or 0)
        self.assertEqual(sorted(names), ["plain", "sized", "the/long name, with ünïcode"])

    def test_the_wire_name_and_the_description(self):
        uri = self.daemon.uri("the/long name, with ünïcode")
        export = json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]
        self.assertEqual((export["export-name"], export["description"]), ("the/long name, with ünïcode", TEXT))

    def test_contexts_are_listed_and_set(self):
        handle = self.negotiating(export_name="plain")
        listed = []
        handle.opt_list_meta_context(lambda name: listed.append(name) or 0)
        self.assertEqual(listed, ["base:allocation"])
        for name in ("base:allocation", "base:nothing", "qemu:dirty-bitmap:none", "x-unknown:thing"):
            handle.add_meta_context(name)
        handle.opt_go()
        self.assertTrue(handle.can_meta_context("base:allocation"))
        for name in ("base:nothing", "qemu:dirty-bitmap:none", "x-unknown:thing"):
            self.assertFalse(handle.can_meta_context(name))

    def test_abort_ends_it(self):
        handle = self.negotiating()
        handle.opt_abort()
        self.assertTrue(handle.aio_is_closed())

    def test_nbdinfo_accepts_the_sizes(self):
        """libnbd drops illegal triples silently; its trace shows those that it keeps as they came."""
        done = run("nbdinfo", self.daemon.uri("sized"), env={"LIBNBD_DEBUG": "1"})
        self.assertRegex(done.stdout, r"block_size_minimum: 4096")
        self.assertIn("block size constraints: min: 4096 preferred: 65536 max: 2097152", done.stderr)
        for uri, flag, status in (("plain", "--can=multi-conn", 0), ("plain", "--is=read-only", 2), ("sized", "--is=read-only", 0),
                                  ("plain", "--can=fua", 0), ("sized", "--can=write", 2)):
            with self.subTest(uri=uri, flag=flag):
                self.assertEqual(run("nbdinfo", flag, self.daemon.uri(uri), ok=False).returncode, status)


class WireTest(harness.GabionTestCase):
    """By hand."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.create_image("image", MiB)
        cls.daemon.create_export("e", "image", description=TEXT)
        cls.daemon.create_export("strict", "image", {"minimumBytes": 4096, "silentClients": "SILENT_CLIENTS_REFUSE"})

    def greeted(self, flags=wire.FIXED_NEWSTYLE | wire.NO_ZEROES):
        client = wire.Client(self.daemon.nbd_socket)
        self.addCleanup(client.socket.close)
        self.assertEqual(client.greet(flags), wire.FIXED_NEWSTYLE | wire.NO_ZEROES)
        return client

    def check_serves(self, client):
        client.send_request(wire.CMD_READ, 77, 0, 512)
        self.assertEqual(client.simple_reply({77: 512}), (77, 0, bytes(512)))

    def check_negotiates(self, client):
        self.assertEqual(client.go("e")[-1][0], wire.REP_ACK)
        self.check_serves(client)

    def test_export_name_with_and_without_zeroes(self):
        for no_zeroes in (True, False):
            with self.subTest(no_zeroes=no_zeroes):
                client = self.greeted(wire.FIXED_NEWSTYLE | (wire.NO_ZEROES if no_zeroes else 0))
                size, flags = client.export_name("e", no_zeroes)
                self.assertEqual((size, flags & 1), (MiB, 1))
                self.check_serves(client)

    def test_export_name_of_nobody_closes(self):
        client = self.greeted()
        client.send_option(wire.OPT_EXPORT_NAME, b"nobody")
        self.assertTrue(client.is_closed())

    def test_export_name_where_block_sizes_are_required_closes(self):
        client = self.greeted()
        client.send_option(wire.OPT_EXPORT_NAME, b"strict")
        self.assertTrue(client.is_closed())

    def test_go_where_block_sizes_are_required(self):
        client = self.greeted()
        self.assertEqual(client.go("strict")[-1][0], wire.REP_ERR_BLOCK_SIZE_REQD)
        self.assertEqual(client.go("strict", [wire.INFO_BLOCK_SIZE])[-1][0], wire.REP_ACK)
        self.check_serves_4096(client)

    def check_serves_4096(self, client):
        client.send_request(wire.CMD_READ, 78, 4096, 4096)
        self.assertEqual(client.simple_reply({78: 4096}), (78, 0, bytes(4096)))

    def test_go_answers_the_infos_that_were_asked_for(self):
        client = self.greeted()
        replies = client.go("e", [wire.INFO_NAME, wire.INFO_DESCRIPTION, wire.INFO_BLOCK_SIZE, 999])
        infos = {struct.unpack(">H", data[:2])[0]: data[2:] for kind, data in replies if kind == wire.REP_INFO}
        self.assertEqual(replies[-1][0], wire.REP_ACK)
        self.assertEqual(set(infos), {wire.INFO_EXPORT, wire.INFO_NAME, wire.INFO_DESCRIPTION, wire.INFO_BLOCK_SIZE})
        self.assertEqual(infos[wire.INFO_NAME].decode(), "e")
        self.assertEqual(infos[wire.INFO_DESCRIPTION].decode(), TEXT)
        self.assertEqual(struct.unpack(">III", infos[wire.INFO_BLOCK_SIZE]), (1, 4096, 32 * MiB))
        self.check_serves(client)

    def test_unknown_options_are_refused_and_their_payload_is_skipped(self):
        client = self.greeted()
        for option, payload in ((0x7654321, b""), (0x7654321, b"x" * 1000), (wire.OPT_PEEK_EXPORT, b"e"), (0, b""),
                                (0xFFFFFFFF, b"y")):
            with self.subTest(option=hex(option)):
                self.assertEqual(client.option(option, payload)[-1][0], wire.REP_ERR_UNSUP)
        self.check_negotiates(client)

    def test_starttls_without_certificates(self):
        client = self.greeted()
        self.assertIn(client.option(wire.OPT_STARTTLS)[-1][0], (wire.REP_ERR_UNSUP, wire.REP_ERR_POLICY))
        self.check_negotiates(client)

    def test_malformed_options_are_invalid(self):
        name = struct.pack(">I", 1) + b"e"
        for label, option, payload in (
                ("list with payload", wire.OPT_LIST, b"x"),
                ("structured replies with payload", wire.OPT_STRUCTURED_REPLY, b"x"),
                ("go without anything", wire.OPT_GO, b""),
                ("go with a name beyond the payload", wire.OPT_GO, struct.pack(">I", 100) + b"e" + bytes(2)),
                ("go with a name of 2^32-1 bytes", wire.OPT_GO, struct.pack(">I", 0xFFFFFFFF) + b"e" + bytes(2)),
                ("go with infos beyond the payload", wire.OPT_GO, name + struct.pack(">H", 3) + bytes(2)),
                ("go with bytes behind the infos", wire.OPT_GO, name + struct.pack(">H", 0) + b"x"),
                ("info with half a number", wire.OPT_INFO, name + b"\0"),
                ("info with a NUL in the name", wire.OPT_INFO, struct.pack(">I", 2) + b"e\0" + bytes(2)),
                ("info with a name of 4097 bytes", wire.OPT_INFO, struct.pack(">I", 4097) + b"e" * 4097 + bytes(2)),
                ("info with a name that is not UTF-8", wire.OPT_INFO, struct.pack(">I", 2) + b"\xff\xfe" + bytes(2)),
                ("contexts before structured replies", wire.OPT_SET_META_CONTEXT, wire.meta_query("e", "base:allocation"))):
            with self.subTest(label):
                client = self.greeted()
                self.assertEqual(client.option(option, payload)[-1][0], wire.REP_ERR_INVALID)
                self.check_negotiates(client)

    def test_malformed_context_queries_are_invalid(self):
        good = wire.meta_query("e", "base:allocation")
        for label, payload in (("empty", b""), ("cut off", good[:-1]), ("with a rest", good + b"x"),
                               ("too many queries", good[:5] + struct.pack(">I", 0xFFFFFFFF) + good[9:])):
            with self.subTest(label):
                client = self.greeted()
                self.assertEqual(client.option(wire.OPT_STRUCTURED_REPLY)[-1][0], wire.REP_ACK)
                self.assertEqual(client.option(wire.OPT_SET_META_CONTEXT, payload)[-1][0], wire.REP_ERR_INVALID)
                self.assertEqual(client.option(wire.OPT_SET_META_CONTEXT, good)[-1][0], wire.REP_ACK)
                self.assertEqual(client.go("e")[-1][0], wire.REP_ACK)

    def test_a_context_of_nobody_is_unknown(self):
        client = self.greeted()
        client.option(wire.OPT_STRUCTURED_REPLY)
        payload = wire.meta_query("nobody", "base:allocation")
        self.assertEqual(client.option(wire.OPT_SET_META_CONTEXT, payload)[-1][0], wire.REP_ERR_UNKNOWN)

    def test_an_option_above_1_mib_is_too_big_and_skipped(self):
        client = self.greeted()
        self.assertEqual(client.option(wire.OPT_GO, bytes(2 * MiB))[-1][0], wire.REP_ERR_TOO_BIG)
        self.check_negotiates(client)

    def test_an_option_above_32_mib_closes(self):
        client = self.greeted()
        client.send_option(wire.OPT_GO, length=33 * MiB)
        with self.assertRaises(wire.Closed):
            client.option_reply(wire.OPT_GO)
            client.receive(1)

    def test_unknown_client_flags_close(self):
        client = wire.Client(self.daemon.nbd_socket)
        self.addCleanup(client.socket.close)
        client.greet(1 << 7 | wire.FIXED_NEWSTYLE)
        self.assertTrue(client.is_closed())

    def test_a_wrong_option_magic_closes(self):
        client = self.greeted()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(client.is_closed())

    def test_abort_is_acknowledged_also_with_a_payload(self):
        for payload in (b"", b"bye"):
            client = self.greeted()
            self.assertEqual(client.option(wire.OPT_ABORT, payload), [(wire.REP_ACK, b"")])
            self.assertTrue(client.is_closed())

    def test_a_byte_at_a_time(self):
        client = self.greeted()
        message = struct.pack(">QII", wire.IHAVEOPT, wire.OPT_GO, 7) + struct.pack(">I", 1) + b"e" + bytes(2)
        message += struct.pack(">IHHQQI", wire.REQUEST, 0, wire.CMD_READ, 5, 0, 16)
        for byte in message:
            client.send(bytes([byte]))
        while client.option_reply(wire.OPT_GO)[0] != wire.REP_ACK:
            pass
        self.assertEqual(client.simple_reply({5: 16}), (5, 0, bytes(16)))

    def test_everything_at_once(self):
        """Options and requests in one send, which come with one receive."""
        client = self.greeted()
        go = struct.pack(">QII", wire.IHAVEOPT, wire.OPT_GO, 7) + struct.pack(">I", 1) + b"e" + bytes(2)
        client.send(struct.pack(">QII", wire.IHAVEOPT, wire.OPT_LIST, 0) + go + b"".join(
            struct.pack(">IHHQQI", wire.REQUEST, 0, wire.CMD_READ, n, 0, 16) for n in range(100)))
        for option in (wire.OPT_LIST, wire.OPT_GO):
            while client.option_reply(option)[0] != wire.REP_ACK:
                pass
        replies = [client.simple_reply({n: 16 for n in range(100)}) for _ in range(100)]
        self.assertEqual(sorted(replies), [(n, 0, bytes(16)) for n in range(100)])


class LimitsTest(harness.GabionTestCase):
    """A short deadline for the handshake, and few connections."""

    flags = ("--handshake-timeout=1", "--max-connections=4")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.uri = cls.daemon.serve("e", MiB)

    def test_silence_is_hung_up_on(self):
        for label, said in (("nothing", b""), ("the flags", struct.pack(">I", 3)),
                            ("half an option", struct.pack(">IQI", 3, wire.IHAVEOPT, wire.OPT_GO))):
            with self.subTest(label), wire.Client(self.daemon.nbd_socket) as client:
                begin = time.monotonic()
                client.receive(18)
                client.send(said)
                self.assertTrue(client.is_closed())
                self.assertGreater(time.monotonic() - begin, 0.5)

    def test_one_who_is_busy_all_the_time_is_hung_up_on_as_well(self):
        with wire.Client(self.daemon.nbd_socket) as client:
            client.greet()
            begin = time.monotonic()
            with self.assertRaises((wire.Closed, BrokenPipeError)):
                while time.monotonic() - begin < 60:
                    client.option(wire.OPT_LIST)

    def test_a_connection_that_is_served_has_no_deadline(self):
        handle = self.connect(self.uri)
        with wire.Client(self.daemon.nbd_socket) as client:  # this one's deadline passes while the first is idle
            client.receive(18)
            self.assertTrue(client.is_closed())
        self.assertEqual(handle.pread(512, 0), bytes(512))

    def test_too_many_connections_are_hung_up_on_until_one_leaves(self):
        harness.wait_until(lambda: not self.daemon.connections("e"), "the connections of other tests are gone")
        handles = [self.connect(self.uri) for _ in range(4)]
        with wire.Client(self.daemon.nbd_socket) as client:
            self.assertTrue(client.is_closed())
        self.assertEqual([handle.pread(512, 0) for handle in handles], [bytes(512)] * 4)
        harness.hang_up(handles.pop())

        def connects():
            try:
                harness.hang_up(harness.nbd_connect(self.uri))
                return True
            except nbd.Error:
                return False
        harness.wait_until(connects, "the place of a client that left can be taken")

    def test_an_export_has_a_limit_of_its_own(self):
        self.daemon.create_export("one", "e", access={"maxConnections": 1})
        self.addCleanup(self.daemon.delete_export, "one")
        handle = self.connect(self.daemon.uri("one"))
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(self.daemon.uri("one"))
        self.assertEqual(handle.pread(512, 0), bytes(512))
        self.assertEqual(self.connect(self.uri).pread(512, 0), bytes(512))


if __name__ == "__main__":
    harness.main(commands=["nbdinfo"])
