# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible server that answers by a script: when each token leaves, and what it says,
follows from the request's body. It notes the monotonic time of everything it does."""
import http.server
import json
import threading
import time
import zlib


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.log = []  # in the order of arrival
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def take_log(self):
        with self.lock:
            log, self.log = self.log, []
        return log

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = b'{"data": [{"id": "org/scripted"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data):
        data = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def do_POST(self):
        came = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        mark = zlib.crc32(json.dumps(asked.get("prompt", asked.get("messages"))).encode())
        note = {"body": body, "asked": asked, "headers": self.headers, "came": came, "writes": []}
        with self.server.lock:
            self.server.log.append(note)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        n = asked["max_tokens"]
        note["answer"] = "".join(f" {mark % 997 + k}" for k in range(n))
        for k in range(n):
            time.sleep((20 + mark % 30 if k == 0 else 1 + (mark >> k) % 6) / 1000)
            note["writes"].append(time.monotonic())
            choice = {"text": f" {mark % 997 + k}", "finish_reason": None}
            self.chunk(json.dumps({"choices": [choice]}))
        usage = {"prompt_tokens": len(asked.get("prompt", "")), "completion_tokens": n}
        self.chunk(json.dumps({"choices": [], "usage": usage}))
        note["end"] = time.monotonic()
        self.chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
