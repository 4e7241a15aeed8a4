"""An S3 store on loopback, for as long as the test runs; reports its port."""

import json
import threading

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
_, port = server.get_host_and_port()
print("REPORT", json.dumps({"port": port}), flush=True)
threading.Event().wait()
