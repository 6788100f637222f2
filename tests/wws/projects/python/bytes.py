# The kit's poly.py: a body of bytes.
def worker(request):
    res = Response(bytes([0, 1, 254, 255]))
    res.headers["content-type"] = "application/octet-stream"
    return res
