"""Serves an exported network: python serve.py FILE [PORT]

POST a photo to any path. The answer is a PNG with one class id per pixel, or status 400
and what is wrong with the photo. Four threads share one segmenter.
"""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

import edgeseg

BYTES, PIXELS = 20_000_000, 20_000_000  # limits of one photo
segmenter = edgeseg.load_segmenter(sys.argv[1], threads=1)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = 10  # seconds for a client that sends nothing

    def do_POST(self):
        """Sends the class ids of the photo, or says what is wrong with it."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BYTES:
            return self.send_error(413, f"send a Content-Length of up to {BYTES}")
        try:
            photo = Image.open(io.BytesIO(self.rfile.read(int(length))))
        except Exception as error:  # of many types for damaged photos
            return self.send_error(400, "no photo", str(error))
        try:
            labels = segmenter.predict(photo, max_pixels=PIXELS)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return self.send_error(400, "no photo", str(error))
        answer = io.BytesIO()
        Image.fromarray(labels).save(answer, "PNG")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(answer.getvalue())))
        self.end_headers()
        self.wfile.write(answer.getvalue())


class Server(ThreadingHTTPServer):
    """Answers up to four requests at a time; the others wait."""

    threads = ThreadPoolExecutor(4)

    def process_request(self, request, client_address):
        """Hands a request to a thread."""
        self.threads.submit(self.process_request_thread, request, client_address)


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    server = Server(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
