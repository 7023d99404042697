# SPDX-License-Identifier: Apache-2.0
"""Mooncake's transfer engine (tcp, peer-to-peer handshake) writes pages from one process's DRAM to
another's. Measured: the blocking call."""
import os
import socket

import peer_common as common


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def engine_at(port):
    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    if engine.initialize(f"127.0.0.1:{port}", "P2PHANDSHAKE", "tcp", "") != 0:
        raise SystemExit("mooncake: initialize failed")
    return engine


def register(engine, pages):
    if engine.register_memory(pages.address, pages.bytes) != 0:
        raise SystemExit("mooncake: register_memory failed")


def serve(pipe, options):
    pages = common.Pages(options, 2)
    engine = engine_at(free_port())
    register(engine, pages)
    pipe.send((f"127.0.0.1:{engine.get_rpc_port()}", pages.addresses()))
    while True:
        reply = common.answer(pipe.recv(), pages)
        if reply is None:
            os._exit(0)
        pipe.send(reply)


def main():
    options = common.arguments(__doc__).parse_args()
    os.environ.setdefault("MC_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")
    target = common.Target(serve, options)
    source = common.Pages(options, 1)
    engine = engine_at(free_port())
    register(engine, source)
    peer, remote = target.pipe.recv()
    local, sizes = source.addresses(), [options.page_bytes] * options.pages

    def transfer():
        if options.pages == 1:
            code = engine.transfer_sync_write(peer, local[0], remote[0], options.page_bytes)
        else:
            code = engine.batch_transfer_sync_write(peer, local, remote, sizes)
        if code != 0:
            raise SystemExit(f"mooncake: {code}")

    common.run(options, "tcp, P2PHANDSHAKE, blocking calls", source, target, transfer)
    target.end()
    os._exit(0)  # its libraries' threads would be waited for


if __name__ == "__main__":
    main()
