# SPDX-License-Identifier: Apache-2.0
"""NIXL's UCX backend writes pages from one process's DRAM to another's. Measured: transfer() until
the state is DONE at the source, with descriptor lists prepared and the request reused.

Without --progress-thread both agents are driven by the caller: on two cores NIXL's spinning thread
costs it more than half."""
import os

import peer_common as common


def agent(name, options):
    from nixl._api import nixl_agent, nixl_agent_config

    return nixl_agent(
        name, nixl_agent_config(enable_prog_thread=options.progress_thread, backends=["UCX"])
    )


def serve(pipe, options):
    pages = common.Pages(options, 2)
    engine = agent("target", options)
    engine.register_memory([(pages.address, pages.bytes, 0, "target")], "DRAM")
    pipe.send((engine.get_agent_metadata(), pages.addresses()))
    while True:
        while not options.progress_thread and not pipe.poll(options.target_sleep):
            engine.get_new_notifs()  # the caller's progress, which transfers over tcp need
        reply = common.answer(pipe.recv(), pages)
        if reply is None:
            os._exit(0)
        pipe.send(reply)


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--tls", help="UCX_TLS, for instance tcp; default: what NIXL's UCX chooses")
    parser.add_argument("--progress-thread", action="store_true")
    parser.add_argument(
        "--target-sleep",
        type=float,
        default=0.0005,
        help="seconds between the target's calls for progress, without a progress thread",
    )
    options = parser.parse_args()
    os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")
    if options.tls:
        os.environ["UCX_TLS"] = options.tls
    if options.tls == "tcp":
        os.environ["UCX_NET_DEVICES"] = "lo"

    import numpy

    target = common.Target(serve, options)
    source = common.Pages(options, 1)
    engine = agent("source", options)
    engine.register_memory([(source.address, source.bytes, 0, "source")], "DRAM")
    metadata, remote = target.pipe.recv()
    engine.add_remote_agent(metadata)
    engine.make_connection("target")

    def descriptors(addresses):
        rows = [(address, options.page_bytes, 0) for address in addresses]
        return numpy.array(rows, dtype=numpy.uint64)

    local_list = engine.prep_xfer_dlist(
        "NIXL_INIT_AGENT", descriptors(source.addresses()), "DRAM"
    )
    remote_list = engine.prep_xfer_dlist("target", descriptors(remote), "DRAM")
    every = numpy.arange(options.pages, dtype=numpy.int32)
    request = engine.make_prepped_xfer("WRITE", local_list, every, remote_list, every)

    def transfer():
        state = engine.transfer(request)
        while state == "PROC":
            state = engine.check_xfer_state(request)
        if state != "DONE":
            raise SystemExit(f"nixl: {state}")

    config = f"UCX backend, {options.tls or 'its choice'}, "
    if options.progress_thread:
        config += "progress thread"
    else:
        config += f"no progress thread, target sleeps {1e6 * options.target_sleep:.0f} us"
    config += f", {common.pages_name(options)}"
    common.run(options, config, source, target, transfer)
    target.end()
    os._exit(0)  # its libraries' threads would be waited for


if __name__ == "__main__":
    main()
